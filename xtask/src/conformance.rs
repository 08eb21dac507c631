//! docs/conformance.md: which SPIFFE requirement is shown by which test.

pub fn run(_check: bool) -> anyhow::Result<()> {
    anyhow::bail!("not written yet")
}
