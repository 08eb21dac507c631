use metrics::with_local_recorder;

use super::*;

fn config() -> MetricsConfig {
    MetricsConfig { prefix: "spire_server".to_owned(), ..MetricsConfig::default() }
}

/// The lines that concern `name`.
fn lines(registry: &Registry, name: &str) -> Vec<String> {
    let text = registry.render();
    text.lines()
        .filter(|line| line.contains(name) && !line.starts_with("# HELP"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn methods_have_the_observed_names() {
    for (path, key) in [
        ("/spire.api.server.entry.v1.Entry/BatchCreateEntry", "rpc.entry.v1.entry.batch_create_entry"),
        ("/spire.api.server.svid.v1.SVID/BatchNewX509SVID", "rpc.svid.v1.svid.batch_new_x509svid"),
        ("/spire.api.server.svid.v1.SVID/NewJWTSVID", "rpc.svid.v1.svid.new_jwtsvid"),
        ("/SpiffeWorkloadAPI/FetchX509SVID", "rpc.workload_api.fetch_x509svid"),
        ("/SpiffeWorkloadAPI/FetchJWTBundles", "rpc.workload_api.fetch_jwt_bundles"),
        ("/SpiffeWorkloadAPI/ValidateJWTSVID", "rpc.workload_api.validate_jwtsvid"),
        ("/grpc.health.v1.Health/Check", "rpc.health.check"),
        ("/spire.api.agent.logger.v1.Logger/GetLogger", "rpc.logger.get_logger"),
        ("nonsense", "rpc.nonsense."),
    ] {
        assert_eq!(rpc_key(path), key);
    }
}

#[test]
fn calls_are_counted_and_timed() {
    let registry = Registry::new(config());
    with_local_recorder(&registry, || {
        CallCounter::start(&["rpc", "entry", "v1", "x"]).done(tonic::Code::Ok);
        CallCounter::start(&["rpc", "entry", "v1", "x"]).done(&Ok::<(), tonic::Status>(()));
        CallCounter::start(&["rpc", "entry", "v1", "x"]).done(&tonic::Status::not_found("no"));
        CallCounter::start(&["rpc", "entry", "v1", "x"]).discard();
        drop(CallCounter::start(&["workload_attestor"]).label("attestor", "unix"));
        let hot = CallMetric::new("hot");
        hot.done(hot.start(), tonic::Code::Ok);
        hot.done(hot.start(), tonic::Code::Ok);
    });
    let x = lines(&registry, "entry_v1_x");
    assert_eq!(
        x[..3],
        [
            "# TYPE spire_server_rpc_entry_v1_x counter",
            r#"spire_server_rpc_entry_v1_x{status="NotFound"} 1"#,
            r#"spire_server_rpc_entry_v1_x{status="OK"} 2"#,
        ]
    );
    assert_eq!(x[3], "# TYPE spire_server_rpc_entry_v1_x_elapsed_time summary");
    assert!(
        x[4].starts_with(r#"spire_server_rpc_entry_v1_x_elapsed_time{status="NotFound",quantile="0.5"} "#)
    );
    assert!(x[7].starts_with(r#"spire_server_rpc_entry_v1_x_elapsed_time_sum{status="NotFound"} "#));
    assert_eq!(x[8], r#"spire_server_rpc_entry_v1_x_elapsed_time_count{status="NotFound"} 1"#);
    assert_eq!(x.len(), 14);
    assert_eq!(lines(&registry, "spire_server_hot{"), [r#"spire_server_hot{status="OK"} 2"#]);
    assert_eq!(
        lines(&registry, "workload_attestor{"),
        [r#"spire_server_workload_attestor{attestor="unix",status="Canceled"} 1"#]
    );
}

#[test]
fn labels_are_sanitized_and_sorted() {
    let registry = Registry::new(MetricsConfig {
        trust_domain_label: Some("example.org".to_owned()),
        hostname_label: true,
        ..config()
    });
    registry.started("1.16.0-dev", "example.org");
    let started = lines(&registry, "started{");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let expected = format!(
        r#"spire_server_started{{host="{}",trust_domain="example_org",trust_domain_id="example_org",version="1_16_0_dev"}} 1"#,
        host.trim()
    );
    assert_eq!(started, [expected]);
    assert_eq!(lines(&registry, "uptime_in_ms").len(), 2);
    assert_eq!(lines(&registry, "runtime_sys_bytes").len(), 2);
}

#[test]
fn prefixes_and_labels_can_be_blocked() {
    let registry = Registry::new(MetricsConfig {
        blocked_prefixes: vec!["spire_server.rpc".to_owned()],
        allowed_prefixes: vec!["spire_server.rpc.entry".to_owned()],
        blocked_labels: vec!["secret".to_owned()],
        ..config()
    });
    with_local_recorder(&registry, || {
        metrics::counter!("rpc.agent.x").increment(1);
        metrics::counter!("rpc.entry.x", "secret" => "s", "open" => "o").increment(1);
        metrics::gauge!("other").set(2.5);
    });
    assert!(lines(&registry, "rpc_agent").is_empty());
    assert_eq!(lines(&registry, "rpc_entry_x{"), [r#"spire_server_rpc_entry_x{open="o"} 1"#]);
    assert_eq!(lines(&registry, "other ")[1], "spire_server_other 2.5");

    let registry = Registry::new(MetricsConfig { allowed_labels: Some(vec!["a".to_owned()]), ..config() });
    with_local_recorder(&registry, || metrics::counter!("x", "a" => "1", "b" => "2").increment(1));
    assert_eq!(lines(&registry, "_x{"), [r#"spire_server_x{a="1"} 1"#]);
}

#[test]
fn callers_cannot_fill_the_memory_with_labels() {
    let registry = Registry::new(config());
    with_local_recorder(&registry, || {
        for label in 0..20_000 {
            metrics::counter!("x", "label" => label.to_string()).increment(1);
        }
        // One name, two kinds: the first wins.
        metrics::gauge!("x").set(1.0);
    });
    assert_eq!(lines(&registry, "_x{").len(), 10_000);
}

#[test]
fn without_a_registry_nothing_happens() {
    CallCounter::start(&["x"]).done(tonic::Code::Ok);
}

#[tokio::test]
async fn prometheus_can_ask() {
    let registry = Registry::new(config());
    with_local_recorder(&registry, || metrics::counter!("x").increment(1));
    let listener = PrometheusListener::bind(registry, "localhost", 0).await.unwrap();
    let address = listener.address();
    let (head, body) = crate::http::tests::get(address, "/metrics", listener.serve()).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\nspire_server_x 1\n"), "{body}");
}
