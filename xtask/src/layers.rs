//! Dependencies point down (docs/ARCHITECTURE.md). Reads `package.metadata.layer` of every member.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

/// Which layers a crate of a layer may use besides its own entry here.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &["base"]),
    ("toolkit", &["base", "toolkit"]),
    ("ports", &["base", "toolkit"]),
    ("engines", &["base", "toolkit", "ports"]),
    ("endpoints", &["base", "toolkit", "ports", "engines"]),
    ("adapters", &["base", "toolkit", "ports"]),
    ("bins", &["base", "toolkit", "ports", "engines", "endpoints", "adapters"]),
    ("tests", &["base", "toolkit", "tests"]),
    ("fuzz", &["base", "toolkit", "ports", "engines"]),
    ("tools", &["base"]),
];

/// Crates that only one of ours may name: a later switch touches one place (docs/adr/).
const FENCED: &[(&str, &[&str])] = &[
    ("rusqlite", &["steeple-datastore-sql"]),
    ("x509-parser", &["steeple-spiffe", "steeple-runtime"]),
    ("rustls-webpki", &["steeple-spiffe", "steeple-runtime"]),
    ("prost-reflect", &["steeple-cli"]),
];

/// What an engine must not know: no gRPC, no SQL.
const ENGINES_WITHOUT: &[&str] = &["tonic", "rusqlite", "hyper", "rustls"];

pub fn run() -> anyhow::Result<()> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .output()
        .context("cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let layers: BTreeMap<&str, &str> = packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().unwrap_or_default();
            (name, package["metadata"]["layer"].as_str().unwrap_or("none"))
        })
        .collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let layer = layers[name];
        let Some((_, allowed)) = MAY_USE.iter().find(|(of, _)| *of == layer) else {
            wrong.push(format!("{name}: package.metadata.layer is `{layer}`, which is no layer"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            let on = dependency["name"].as_str().unwrap_or_default();
            if let Some(below) = layers.get(on)
                && !allowed.contains(below)
            {
                wrong.push(format!("{name} ({layer}) uses {on} ({below})"));
            }
            if let Some((_, users)) = FENCED.iter().find(|(fenced, _)| *fenced == on)
                && !users.contains(&name)
            {
                wrong.push(format!("{name} names {on}, which only {users:?} may"));
            }
            if layer == "engines" && ENGINES_WITHOUT.contains(&on) {
                wrong.push(format!("{name} is an engine and names {on}"));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("layers:\n  {}", wrong.join("\n  "));
    }
    println!("layers: {} crates, every edge points down", packages.len());
    Ok(())
}
