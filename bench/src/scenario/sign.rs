//! Signing for an agent, and for an administrator.

use std::time::Instant;

use anyhow::{Context, Result};
use steeple_proto::spire::api::server::svid::v1::{MintJwtsvidRequest, MintX509svidRequest};
use steeple_spiffe::{KeyType, PrivateKey};

use super::Run;
use crate::measure::Window;
use crate::record::Unit;
use crate::wire::node::{Node, request_for};

const ENTRIES: usize = 500;

pub async fn run(mut run: Run<'_>) -> Result<()> {
    let mut place = run.subject.server().await?;
    let entries = place.admin.others("bench", 0, ENTRIES);
    let ids: Vec<String> = entries.iter().map(|entry| entry.id.clone()).collect();
    place.admin.create_many(entries).await?;
    let node = Node::seeing(&mut place, ENTRIES).await?;
    let server = place.server()?;
    let svids = run.plan.size("svids");
    for batch in [500, 50, 1] {
        batches(&mut run, &node, server, &ids, batch, svids, "").await?;
    }

    let jwts = run.plan.size("jwts");
    node.sign_jwt(&ids[0]).await?;
    let window = Window::open(server)?;
    let mut latencies = Vec::new();
    for n in 0..jwts {
        let at = Instant::now();
        node.sign_jwt(&ids[n % ENTRIES]).await?;
        latencies.push(at.elapsed());
    }
    run.notes.cpu("sign/jwt/server-cpu", window.micros(jwts)?, Some("jwt-sign"));
    run.notes.latencies("sign/jwt/latency", &latencies);

    let id = format!("spiffe://{}/bench/minted", place.admin.trust_domain());
    let csr = request_for(&PrivateKey::generate(KeyType::EcP256)?, &[&id])?;
    let window = Window::open(server)?;
    for _ in 0..svids {
        let minted =
            place.admin.svids.mint_x509svid(MintX509svidRequest { csr: csr.clone(), ttl: 600 }).await;
        minted.context("MintX509SVID")?.into_inner().svid.context("MintX509SVID: no SVID")?;
    }
    run.notes.cpu("mint/x509/server-cpu", window.micros(svids)?, Some("csr-verify-and-sign"));
    let id = crate::wire::id(&id)?;
    let window = Window::open(server)?;
    for _ in 0..jwts {
        let request = MintJwtsvidRequest { id: Some(id.clone()), audience: vec!["bench".into()], ttl: 600 };
        let minted = place.admin.svids.mint_jwtsvid(request).await;
        minted.context("MintJWTSVID")?.into_inner().svid.context("MintJWTSVID: no SVID")?;
    }
    run.notes.cpu("mint/jwt/server-cpu", window.micros(jwts)?, Some("jwt-sign"));
    run.notes.one("sign/server-peak", Unit::Mebibytes, server.memory()?.peak);

    let others = run.plan.size("other-entries");
    if others > 0 {
        let entries = place.admin.strangers("other", 0, others);
        place.admin.create_many(entries).await?;
        batches(&mut run, &node, server, &ids, 1, svids, "-with-other-entries").await?;
    }
    Ok(())
}

async fn batches(
    run: &mut Run<'_>,
    node: &Node,
    server: crate::measure::Process,
    ids: &[String],
    batch: usize,
    svids: usize,
    suffix: &str,
) -> Result<()> {
    // The first call connects.
    node.sign(&ids[..batch]).await?;
    let window = Window::open(server)?;
    let mut latencies = Vec::new();
    let calls = svids.div_ceil(batch);
    for n in 0..calls {
        let from = (n * batch) % ids.len();
        let at = Instant::now();
        node.sign(&ids[from..from + batch]).await?;
        latencies.push(at.elapsed());
    }
    let key = format!("sign/x509-batch-{batch}{suffix}");
    run.notes.cpu(
        &format!("{key}/server-cpu-each"),
        window.micros(calls * batch)?,
        Some("csr-verify-and-sign"),
    );
    run.notes.latencies(&format!("{key}/latency"), &latencies);
    Ok(())
}
