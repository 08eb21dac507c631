//! The SPIFFE requirements of type `srv` as black-box tests by id (docs/conformance.md), over the Workload API socket of the binaries in
//! `STEEPLE_BIN_DIR`.

use std::time::Duration;

use anyhow::{Context, Result};
use steeple_e2e::{Deployment, NODE, Workload, uid};
use steeple_proto::workload::{JwtsvidRequest, X509svidRequest, X509svidResponse};
use tonic::{Status, Streaming};

/// A deployment in which this process has the identities `/one` (hint `internal`) and `/two` (hint `external`), and its client.
pub async fn entitled() -> Result<(Deployment, Workload)> {
    let d = Deployment::builder().start_with_agent()?;
    let me = format!("unix:uid:{}", uid());
    d.entry("1", "/one", &me, &["-hint", "internal"])?;
    d.entry("2", "/two", &me, &["-hint", "external"])?;
    d.eventually("both identities", Duration::from_secs(20), || {
        let ran = d.agent_api(&["api", "fetch"]);
        ran.stdout.contains("/one") && ran.stdout.contains("/two")
    })?;
    let w = d.workload().await?;
    Ok((d, w))
}

/// A deployment whose agent serves, but not this process.
pub async fn stranger() -> Result<(Deployment, Workload)> {
    let d = Deployment::builder().start_with_agent()?;
    d.entry("other", "/other", "unix:uid:4294967", &[])?;
    let w = d.workload().await?;
    Ok((d, w))
}

/// Entries for this process.
pub fn entry_for_me(d: &Deployment, id: &str, more: &[&str]) -> Result<()> {
    d.entry(id, &format!("/{id}"), &format!("unix:uid:{}", uid()), more).map(drop)
}

/// The parent of every entry.
pub const PARENT: &str = NODE;

/// Opens the X.509 stream.
pub async fn x509(w: &mut Workload) -> Result<Streaming<X509svidResponse>> {
    Ok(w.api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner())
}

/// The next message, within the patience of a poll.
pub async fn next<T>(stream: &mut Streaming<T>) -> Result<T> {
    tokio::time::timeout(Duration::from_secs(15), stream.message())
        .await
        .context("no message")??
        .context("ended")
}

/// The status that a stream begins or ends with.
pub async fn refusal<T>(opened: Result<tonic::Response<Streaming<T>>, Status>) -> Result<Status> {
    match opened {
        Err(status) => Ok(status),
        Ok(stream) => stream.into_inner().message().await.err().context("a message instead of a refusal"),
    }
}

/// A JWT-SVID request.
pub fn jwt(audience: &[&str], spiffe_id: &str) -> tonic::Request<JwtsvidRequest> {
    Workload::request(JwtsvidRequest {
        audience: audience.iter().map(|&a| a.to_owned()).collect(),
        spiffe_id: spiffe_id.to_owned(),
    })
}

/// The SPIFFE IDs of an X.509 message, in order.
pub fn ids(message: &X509svidResponse) -> Vec<&str> {
    message.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect()
}
