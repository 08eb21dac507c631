//! From the call that creates an entry to the SVID in a workload's hands.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Run;
use crate::subject::Place;
use crate::wire::workload::Held;

/// How soon a workload asks again that was told there is nothing for it.
const AGAIN: Duration = Duration::from_millis(50);

pub async fn run(mut run: Run<'_>) -> Result<()> {
    let mut place = run.subject.with_agent().await?;
    let trials = run.plan.size("trials");
    let others = run.plan.size("other-entries");
    let entries = place.admin.strangers("other", 0, others);
    place.admin.create_many(entries).await?;
    let suffix = if others > 0 { "-with-other-entries" } else { "" };
    let latencies = first_identity(&mut place, trials.div_ceil(4), true).await?;
    run.notes.latencies(&format!("propagation{suffix}/created-after-connecting"), &latencies);
    let latencies = first_identity(&mut place, trials.div_ceil(4), false).await?;
    run.notes.latencies(&format!("propagation{suffix}/created-before-connecting"), &latencies);
    let (created, deleted) = open_stream(&mut place, trials).await?;
    run.notes.latencies(&format!("propagation{suffix}/open-stream"), &created);
    run.notes.latencies(&format!("propagation{suffix}/deleted"), &deleted);
    Ok(())
}

/// Entries come and go while a workload holds a stream.
pub async fn open_stream(place: &mut Place, trials: usize) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let anchor = place.admin.mine("anchor");
    place.admin.create(vec![anchor]).await?;
    let mut held = Held::patiently(&place.at.workload_socket, AGAIN).await?;
    let (mut created, mut deleted) = (Vec::new(), Vec::new());
    for n in 0..trials {
        let name = format!("trial-{n}");
        let entry = place.admin.mine(&name);
        let at = Instant::now();
        place.admin.create(vec![entry]).await?;
        held.until_named(&name, true).await?;
        created.push(at.elapsed());
        // Each trial meets the agent at another point of its interval, if it has one.
        tokio::time::sleep(Duration::from_millis(37 * (n as u64 % 7))).await;
        let at = Instant::now();
        place.admin.delete(vec![name.clone()]).await?;
        held.until_named(&name, false).await?;
        deleted.push(at.elapsed());
    }
    place.admin.delete(vec!["anchor".into()]).await?;
    Ok((created, deleted))
}

/// A workload's very first identity: it waits for it already, or it comes right after the entry was made.
async fn first_identity(place: &mut Place, trials: usize, waiting: bool) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    for n in 0..trials {
        let name = format!("first-{waiting}-{n}");
        let entry = place.admin.mine(&name);
        let socket = place.at.workload_socket.clone();
        let fetch = async {
            let mut held = Held::patiently(&socket, AGAIN).await?;
            held.until_named(&name, true).await?;
            anyhow::Ok((held, Instant::now()))
        };
        let admin = &mut place.admin;
        let (mut held, took) = if waiting {
            let created = async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let at = Instant::now();
                admin.create(vec![entry]).await?;
                anyhow::Ok(at)
            };
            let ((held, there), at) = tokio::try_join!(fetch, created)?;
            (held, there.duration_since(at))
        } else {
            let at = Instant::now();
            admin.create(vec![entry]).await?;
            let (held, there) = fetch.await?;
            (held, there.duration_since(at))
        };
        latencies.push(took);
        // The next one starts from nothing. Without an identity left the stream ends, or says so.
        place.admin.delete(vec![name.clone()]).await?;
        held.until_named(&name, false).await.ok();
    }
    Ok(latencies)
}
