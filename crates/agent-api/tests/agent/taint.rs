//! An authority is tainted: what it signed is replaced at once, the agent's own SVID too.

use std::sync::atomic::Ordering;

use steeple_proto::spire::api::types;
use steeple_proto::steeple::agent::v1::WatchResponse;
use steeple_proto::workload::X509svidRequest;

use crate::agent::request;
use crate::server::{Server, view, web};
use crate::{running, until};

/// The server's bundle with its authority tainted, as a change of that revision.
fn tainted(server: &Server, revision: u64) -> WatchResponse {
    let mut bundle: types::Bundle = server.view.lock().unwrap().bundles[0].clone();
    bundle.x509_authorities[0].tainted = true;
    bundle.sequence_number += 1;
    WatchResponse { bundles: vec![bundle], ..view(revision, false, &[]) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_svid_leaves_a_tainted_authority_at_once() {
    let (_clock, server, agent) = running().await;
    let identity = agent.identity.clone();
    crate::spawn(async move { drop(identity.run().await) });
    server.push(view(2, false, &[web("1", "/one", "1")]));
    let mut workload =
        agent.workload_with(|config| config.wait_timeout = std::time::Duration::from_secs(10)).await;
    let mut stream = workload.client.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(server.renewals.load(Ordering::SeqCst), 0);

    server.push(tainted(&server, 3));
    // The bundle changes first, or both at once.
    loop {
        let next = stream.message().await.unwrap().unwrap();
        if next.svids[0].x509_svid != first.svids[0].x509_svid {
            break;
        }
    }
    until(|| server.renewals.load(Ordering::SeqCst) > 0).await;
    // This server goes on under the tainted authority: it is not asked again until some time has passed.
    server.push(tainted(&server, 4));
    tokio::task::yield_now().await;
    assert_eq!(server.renewals.load(Ordering::SeqCst), 1);
}
