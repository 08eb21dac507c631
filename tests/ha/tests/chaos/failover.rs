//! PostgreSQL's primary dies; the standby that followed it takes over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::Run;
use crate::cluster::Cluster;

/// How soon every server must take writes again after the promotion.
const LIMIT: Duration = Duration::from_secs(15);

pub fn run(cluster: &mut Cluster, run: &Arc<Run>) -> Result<Vec<String>> {
    let primary = cluster.backend.clone().context("no database server")?;
    let standby = Arc::new(primary.standby()?);
    // What is acknowledged is on both.
    primary.query("postgres", "alter system set synchronous_standby_names = '*'")?;
    primary.query("postgres", "select pg_reload_conf()")?;
    std::thread::sleep(Duration::from_secs(3));
    let (before, _) = run.ledger().counts();
    primary.kill()?;
    std::thread::sleep(Duration::from_secs(1));
    standby.promote()?;
    standby.query("postgres", "alter system set synchronous_standby_names = ''")?;
    standby.query("postgres", "select pg_reload_conf()")?;
    cluster.proxy.as_ref().context("no proxy")?.turn(standby.port());
    cluster.backend = Some(standby);
    let promoted = Instant::now();
    let mut late = Vec::new();
    for (n, server) in cluster.servers.iter().enumerate() {
        let id = format!("after-{n}");
        while let Err(error) = server.entry(&id, &format!("/{id}"), "unix:uid:1", &[]) {
            if promoted.elapsed() > LIMIT {
                late.push(format!("server {n} takes no writes {LIMIT:?} after the fail-over: {error:#}"));
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    println!("all servers write again {:?} after the promotion", promoted.elapsed());
    std::thread::sleep(Duration::from_secs(3));
    cluster.all_alive()?;
    let (after, _) = run.ledger().counts();
    println!("{before} writes acknowledged before, {} after", after - before);
    Ok(late)
}
