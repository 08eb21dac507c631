//! proto/ → crates/proto/src/gen, without a system protoc.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use prost::Message;

const GENERATED: &str = "crates/proto/src/gen";

pub fn run(check: bool) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent")?.to_path_buf();
    let mut sources = Vec::new();
    collect(&root.join("proto"), &mut sources)?;
    sources.sort();
    let fds = protox::compile(&sources, [root.join("proto")]).context("protos do not compile")?;
    let scratch = root.join("target/protos");
    fs::remove_dir_all(&scratch).ok();
    fs::create_dir_all(&scratch)?;
    fs::write(scratch.join("descriptors.bin"), fds.encode_to_vec())?;
    tonic_prost_build::configure()
        .out_dir(&scratch)
        .emit_rerun_if_changed(false)
        .compile_well_known_types(false)
        .codec_path("crate::Codec")
        .compile_fds(fds)?;
    let generated = root.join(GENERATED);
    let mut stale = Vec::new();
    for entry in fs::read_dir(&scratch)? {
        let path = entry?.path();
        let name = path.file_name().context("no name")?.to_owned();
        let fresh = fs::read(&path)?;
        let target = generated.join(&name);
        if fs::read(&target).ok().as_ref() != Some(&fresh) {
            stale.push(name.to_string_lossy().into_owned());
            if !check {
                fs::create_dir_all(&generated)?;
                fs::write(&target, fresh)?;
            }
        }
    }
    if check && !stale.is_empty() {
        bail!("{GENERATED} is not what proto/ says ({}): run `cargo xtask protos`", stale.join(", "));
    }
    println!("protos: {} files, {} changed", sources.len(), stale.len());
    Ok(())
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|ext| ext == "proto") {
            into.push(path);
        }
    }
    Ok(())
}
