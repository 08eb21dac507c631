//! Agents that attest.

use std::time::Instant;

use anyhow::Result;

use super::Run;
use crate::measure::Window;
use crate::wire::node::{Way, tokens};
use crate::wire::pop::Authority;

pub async fn run(mut run: Run<'_>) -> Result<()> {
    let count = run.plan.size("attestations");
    let authority = Authority::new()?;
    let pem = std::env::temp_dir().join(format!("steeple-bench-nodes-{}.pem", std::process::id()));
    std::fs::write(&pem, authority.certificate.to_pem())?;
    let plugin = format!(
        "  NodeAttestor \"x509pop\" {{ plugin_data {{ ca_bundle_path = \"{}\" }} }}\n",
        pem.display()
    );
    let opened = run.subject.open(|builder| builder.server_plugins(&plugin), false).await;
    std::fs::remove_file(&pem)?;
    let mut place = opened?;
    let (server, way) = (place.server()?, Way::to(&mut place).await?);

    let tokens = tokens(&mut place.admin, count + 1).await?;
    let (first, tokens) = tokens.split_at(1);
    way.join(&first[0]).await?;
    let window = Window::open(server)?;
    let mut latencies = Vec::new();
    for token in tokens {
        let at = Instant::now();
        way.join(token).await?;
        latencies.push(at.elapsed());
    }
    run.notes.cpu("attestation/join-token/server-cpu", window.micros(count)?, Some("tls-handshake"));
    run.notes.latencies("attestation/join-token/latency", &latencies);

    let proofs = (0..count).map(|n| authority.node(&format!("node-{n}"))).collect::<Result<Vec<_>>>()?;
    let window = Window::open(server)?;
    let mut latencies = Vec::new();
    for proof in &proofs {
        let at = Instant::now();
        way.prove(proof).await?;
        latencies.push(at.elapsed());
    }
    run.notes.cpu("attestation/x509pop/server-cpu", window.micros(count)?, Some("tls-handshake"));
    run.notes.latencies("attestation/x509pop/latency", &latencies);
    Ok(())
}
