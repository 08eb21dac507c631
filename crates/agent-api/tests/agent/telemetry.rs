//! The log lines that scripts wait for and the metrics that dashboards show, under SPIRE's names.

use std::time::Duration;

use steeple_agent_api::admin::DebugService;
use steeple_proto::spire::agent::debug::v1::{GetInfoRequest, debug_server::Debug as _};
use steeple_proto::spire::api::types::Entry;
use steeple_proto::workload::{X509BundlesRequest, X509svidRequest};
use steeple_runtime::logs::{self, LogConfig, LogLevel};
use steeple_runtime::metrics::{MetricsConfig, Registry};
use tonic::Request;

use super::agent::request;
use super::server::{view, web};
use super::{gone, running, until};

/// One test: the log and the metrics are the whole process's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_and_metrics_are_spires() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.log");
    let config = LogConfig { level: LogLevel::Debug, file: Some(file.clone()), ..LogConfig::default() };
    let _handle = logs::init(config).unwrap();
    let registry = Registry::new(MetricsConfig { prefix: "spire_agent".into(), ..Default::default() });
    registry.install();

    let (clock, server, agent) = running().await;
    server.push(view(2, false, &[web("log-1", "/logged", "41")]));
    until(|| agent.state.svid_counts().0 == 1).await;
    let changed = Entry { dns_names: vec!["logged.example".into()], ..web("log-1", "/logged", "41") };
    server.push(view(3, false, &[changed]));
    until(|| std::fs::read_to_string(&file).unwrap().matches("entry=log-1").count() >= 4).await;
    server.push(gone("log-1", 4));
    until(|| agent.state.svid_counts().0 == 0).await;
    server.push(view(5, false, &[web("log-2", "/due", "1")]));
    until(|| agent.state.svid_counts().0 == 1).await;
    clock.advance(Duration::from_mins(50));
    server.push(view(6, false, &[web("log-3", "/new", "1")]));
    until(|| registry.render().contains("cache_manager_expiring_svids")).await;

    let mut workload = agent.workload_with(|config| config.rate_limits.fetch_x509_bundles = 1).await;
    let client = &mut workload.client;
    client.fetch_x509svid(request(X509svidRequest {})).await.unwrap();
    client.fetch_x509_bundles(request(X509BundlesRequest {})).await.unwrap();
    let limited = client.fetch_x509_bundles(request(X509BundlesRequest {})).await.unwrap_err();
    assert_eq!(limited.message(), "rate limit exceeded for /SpiffeWorkloadAPI/FetchX509Bundles");
    let (state, identity) = (agent.state.clone(), agent.identity.clone());
    let debug = DebugService { state, identity, started: Duration::ZERO };
    debug.get_info(Request::new(GetInfoRequest {})).await.unwrap();

    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("spiffe://example.org/logged")).collect();
    for (level, message, fields) in [
        (
            "debug",
            "Entry created",
            "entry=log-1 selectors_added=1 spiffe_id=\"spiffe://example.org/logged\" subsystem_name=cache_manager",
        ),
        (
            "debug",
            "Entry updated",
            "entry=log-1 spiffe_id=\"spiffe://example.org/logged\" subsystem_name=cache_manager",
        ),
        (
            "debug",
            "Entry removed",
            "entry=log-1 spiffe_id=\"spiffe://example.org/logged\" subsystem_name=cache_manager",
        ),
        (
            "debug",
            "SVID updated",
            "entry=log-1 spiffe_id=\"spiffe://example.org/logged\" subsystem_name=cache_manager",
        ),
        (
            "info",
            "Creating X509-SVID",
            "entry_id=log-1 spiffe_id=\"spiffe://example.org/logged\" subsystem_name=manager",
        ),
        ("info", "Renewing X509-SVID", "entry_id=log-1 expires_at="),
    ] {
        let wanted = format!("level={level} msg=\"{message}\" {fields}");
        assert!(lines.iter().any(|line| line.contains(&wanted)), "{wanted} in {lines:#?}");
    }

    // The server notes the end of a call when it hears of it.
    until(|| registry.render().contains("rpc_workload_api_fetch_x509svid{status=\"OK\"} ")).await;
    let metrics = registry.render();
    for name in [
        "bootstrapped",
        "bootstrap_attempts{mode=\"bootstrap\"}",
        "bootstrap_attempts{mode=\"rebootstrap\"}",
        "bootstrap_seconds{mode=\"bootstrap\"}",
        "bootstrap_seconds{mode=\"rebootstrap\"}",
        "cache_manager_expiring_svids_count",
        "cache_manager_outdated_svids_count",
        "debug_api_connection",
        "debug_api_connections",
        "lru_cache_entry_add",
        "lru_cache_entry_remove",
        "lru_cache_entry_update",
        "lru_cache_record_map_size{svid_type=\"X509\"}",
        "lru_cache_svid_map_size{svid_type=\"X509\"}",
        "manager_sync_fetch_entries_updates{status=\"OK\"}",
        "manager_sync_fetch_svids_updates{status=\"OK\"}",
        "node_attestor_new_svid{attestor=\"join_token\",status=\"OK\"}",
        "rpc_workload_api_fetch_x509svid{status=\"OK\"}",
        "sync_bundles_total",
        "sync_entries_dropped",
        "sync_entries_missing",
        "sync_entries_stale",
        "sync_entries_total",
        "uptime_in_ms",
        "workload_api_connection",
        "workload_api_connections",
        "workload_api_discovered_selectors_count",
        "workload_api_rate_limit_exceeded{method=\"_SpiffeWorkloadAPI_FetchX509Bundles\"}",
        "workload_api_workload_attestation{status=\"OK\"}",
        "workload_api_workload_attestor{attestor=\"test\",status=\"OK\"}",
    ] {
        let wanted = format!("spire_agent_{name} ");
        assert!(metrics.lines().any(|line| line.starts_with(&wanted)), "{wanted} in {metrics}");
    }
}
