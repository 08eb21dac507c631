//! Registration entries from creation to deletion.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use steeple_proto::spire::api::server::entry::v1::list_entries_request::Filter;
use steeple_proto::spire::api::types::{Selector, SelectorMatch, selector_match::MatchBehavior};

use super::Run;
use crate::measure::Window;
use crate::record::Unit;

const COUNTS: usize = 20;

pub async fn run(mut run: Run<'_>) -> Result<()> {
    let mut place = run.subject.server().await?;
    let (count, batch) = (run.plan.size("entries"), run.plan.size("batch").max(1));
    let server = place.server()?;
    let admin = &mut place.admin;

    let whole = Window::open(server)?;
    let mut latencies = Vec::new();
    let (mut tenths, mut made) = (Vec::new(), 0);
    for tenth in 1..=10 {
        let window = Window::open(server)?;
        let begin = made;
        while made < count * tenth / 10 {
            let some = batch.min(count * tenth / 10 - made);
            let entries = admin.strangers("bench", made, some);
            let at = Instant::now();
            admin.create(entries).await?;
            latencies.push(at.elapsed());
            made += some;
        }
        tenths.push(window.micros(made - begin)?);
    }
    let notes = &mut run.notes;
    notes.cpu("entries/create/server-cpu-each", whole.micros(count)?, None);
    notes.latencies(&format!("entries/create/latency-of-{batch}"), &latencies);
    // The cheaper of two each: what the server does now and then, and other work on the machine, is no growth.
    let growth = tenths[8].min(tenths[9]) / tenths[0].min(tenths[1]);
    notes.one("entries/create/growth", Unit::Times, growth);

    let window = Window::open(server)?;
    ensure!(admin.list(None).await? == count, "ListEntries does not list all");
    notes.cpu("entries/list/server-cpu-each", window.micros(count)?, None);

    let some = admin.strangers("bench", 0, 1).remove(0);
    let by_parent = Filter { by_parent_id: some.parent_id, ..Filter::default() };
    let selectors = vec![Selector { r#type: "unix".into(), value: "uid:2000000".into() }];
    let by_selectors = SelectorMatch { selectors, r#match: MatchBehavior::MatchSuperset.into() };
    let by_selectors = Filter { by_selectors: Some(by_selectors), ..Filter::default() };
    for (name, filter, found) in [("parent", by_parent, count.div_ceil(1000)), ("selector", by_selectors, 1)]
    {
        let window = Window::open(server)?;
        for _ in 0..COUNTS {
            let listed = admin.list(Some(filter.clone())).await?;
            ensure!(listed == found, "ListEntries by {name}: {listed} instead of {found}");
        }
        notes.cpu(&format!("entries/filter-{name}/server-cpu"), window.micros(COUNTS)?, None);
    }

    let window = Window::open(server)?;
    let mut latencies = Vec::new();
    for _ in 0..COUNTS {
        let at = Instant::now();
        ensure!(admin.count().await? == count, "CountEntries does not count all");
        latencies.push(at.elapsed());
    }
    notes.latencies(&format!("entries/{count}/count-latency"), &latencies);
    notes.cpu("entries/count/server-cpu", window.micros(COUNTS)?, None);

    // SPIRE looks at its entries every five seconds.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let window = Window::open(server)?;
    tokio::time::sleep(Duration::from_secs(run.plan.size("idle-seconds") as u64)).await;
    notes.one(&format!("entries/{count}/idle-server-cpu"), Unit::Percent, window.share()?);
    notes.one(&format!("entries/{count}/server-rss"), Unit::Mebibytes, server.memory()?.rss);
    notes.one(&format!("entries/{count}/server-peak"), Unit::Mebibytes, server.memory()?.peak);

    let window = Window::open(server)?;
    let ids: Vec<String> = (0..count).map(|n| format!("bench-{n}")).collect();
    for ids in ids.chunks(batch) {
        admin.delete(ids.to_vec()).await?;
    }
    notes.cpu("entries/delete/server-cpu-each", window.micros(count)?, None);
    ensure!(admin.count().await? == 0, "entries are left");
    Ok(())
}
