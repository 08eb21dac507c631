//! Project chores. `cargo xtask <chore>`; each has `--check`, which fails instead of writing.
#![allow(clippy::print_stdout, reason = "a chore says what it did")]

mod compat;
mod conformance;
mod layers;
mod protos;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let check = args.iter().any(|arg| arg == "--check");
    match args.first().map(String::as_str) {
        Some("protos") => protos::run(check),
        Some("layers") => layers::run(),
        Some("compat") => compat::run(check),
        Some("conformance") => conformance::run(check),
        _ => anyhow::bail!("usage: cargo xtask protos|layers|conformance|compat [--check]"),
    }
}
