use steeple_agent_api::sds::SdsNames;
use steeple_agent_api::workload::RateLimits;
use steeple_agent_core::node::Rebootstrap;

use super::*;

const GOOD: &str = r#"
agent {
  server_address = "localhost"
  server_port = "8081"
  trust_domain = "example.org"
  insecure_bootstrap = true
  EXTRA
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data { discover_workload_path = true } }
}
"#;

fn load_text(text: &str, flags: &[&str]) -> Result<Config, LoadError> {
    let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
    let flags = RunFlags::parse("run", &flags).map_err(LoadError::Flags)?;
    let body = steeple_config::parse("agent.conf", text).map_err(LoadError::Decode)?;
    file::decode(&body, &flags)
}

fn with(extra: &str) -> Result<Config, LoadError> {
    load_text(&GOOD.replace("EXTRA", extra), &[])
}

fn refusal(extra: &str) -> String {
    with(extra).unwrap_err().to_string()
}

#[test]
fn defaults_are_spires() {
    let config = with("").unwrap();
    assert_eq!(config.socket_path.unwrap().to_str(), Some("/tmp/spire-agent/public/api.sock"));
    assert_eq!(config.data_dir.to_str(), Some("."));
    assert_eq!((config.x509_cache_max, config.jwt_cache_max), (1000, 1000));
    assert_eq!(config.sync_interval, Duration::from_secs(5));
    assert_eq!(config.workload.wait_timeout, Duration::from_secs(2));
    assert_eq!(config.trust, TrustConfig::Insecure);
    assert!(config.admin_socket_path.is_none() && config.health.is_none() && config.telemetry.is_none());
    let [WorkloadAttestorConfig::Unix(unix)] = &*config.workload_attestors else { panic!() };
    assert!(unix.discover_workload_path);
}

#[test]
fn the_command_line_wins() {
    let flags = [
        "-serverAddress",
        "other",
        "-serverPort=9",
        "-trustDomain",
        "other.org",
        "-dataDir",
        "/d",
        "-joinToken",
        "t",
        "-socketPath",
        "/s/api.sock",
        "-logLevel",
        "debug",
    ];
    let config = load_text(&GOOD.replace("EXTRA", "join_token = \"x\""), &flags).unwrap();
    assert_eq!((config.server_address.as_str(), config.server_port), ("other", 9));
    assert_eq!(config.trust_domain.name(), "other.org");
    assert_eq!(config.join_token.expose(), "t");
    assert_eq!(config.socket_path.unwrap().to_str(), Some("/s/api.sock"));
    let flags = ["-joinToken".to_owned(), "0ca1-73".to_owned()];
    let shown = format!("{:?}", RunFlags::parse("run", &flags).unwrap());
    assert!(!shown.contains("0ca1-73"), "a token stays out of logs: {shown}");
    let shown = format!("{:?}", with("join_token = \"0ca1-73\"").unwrap());
    assert!(!shown.contains("0ca1-73"), "{shown}");
}

#[test]
fn an_empty_duration_is_not_set() {
    let config = with(
        "rebootstrap_delay = \"\" availability_target = \"\" experimental { sync_interval = \"\" workload_wait_timeout = \"\" }",
    )
    .unwrap();
    assert_eq!(config.rotation.availability_target, None);
    assert_eq!(config.sync_interval, Duration::from_secs(5));
    assert_eq!(config.workload.wait_timeout, Duration::from_secs(2));
    assert!(refusal("rebootstrap_delay = \"soon\"").contains("rebootstrap_delay"));
    let text = GOOD.replace("EXTRA", "");
    let error = load_text(&text, &["-rebootstrapDelay", "soon"]).unwrap_err().to_string();
    assert!(error.contains("-rebootstrapDelay") && error.contains("soon"), "{error}");
    assert!(load_text(&text, &["-rebootstrapDelay", "5m"]).is_ok());
}

#[test]
fn open_calls_follow_open_connections() {
    for (extra, calls) in [
        ("", 16_384),
        ("experimental { workload_connections_per_user = 10 }", 40),
        ("experimental { workload_connections_per_user = 5000 }", 16_384),
        ("experimental { workload_connections_per_user = 50000 }", 50_000),
    ] {
        assert_eq!(with(extra).unwrap().workload.calls_per_user, calls);
    }
}

#[test]
fn either_api_can_be_switched_off_and_the_socket_goes_with_both() {
    for (extra, flags, names, socket) in [
        ("", vec![], "Workload and SDS APIs", true),
        ("disable_sds_api = true", vec![], "Workload API", true),
        ("", vec!["-disableWorkloadAPI"], "SDS API", true),
        ("disable_workload_api = true", vec!["-disableSDSAPI"], "no APIs", false),
        ("disable_workload_api = true disable_sds_api = true", vec![], "no APIs", false),
    ] {
        let config = load_text(&GOOD.replace("EXTRA", extra), &flags).unwrap();
        assert_eq!((config.apis.names(), config.socket_path.is_some()), (names, socket));
    }
}

#[test]
fn secrets_have_spires_names_unless_others_are_given() {
    assert_eq!(with("").unwrap().sds, SdsNames::default());
    let istio =
        with("sds { default_bundle_name = \"null\" default_all_bundles_name = \"ROOTCA\" }").unwrap().sds;
    assert_eq!(
        (&*istio.default_svid, &*istio.default_bundle, &*istio.default_all_bundles),
        ("default", "null", "ROOTCA")
    );
    assert!(
        with("sds { disable_spiffe_cert_validation = true }").unwrap().sds.disable_spiffe_cert_validation
    );
    let config = with("sds { nonsense = 1 }").unwrap();
    assert!(
        config.warnings.iter().any(|warning| warning.contains("nonsense")),
        "SPIRE does not check this block"
    );
}

#[test]
fn an_unknown_key_in_a_strict_block_is_refused_with_its_place() {
    let error = refusal("sokcet_path = \"/x\"");
    assert_eq!(error, "unknown configuration detected: agent.conf:7:3: unknown key \"sokcet_path\" in agent");
    let top =
        load_text(&format!("{}\nagnet {{}}\n", GOOD.replace("EXTRA", "")), &[]).unwrap_err().to_string();
    assert!(top.contains("agent.conf:15:1: unknown key \"agnet\" in top-level"), "{top}");
    for (block, section) in [
        ("telemetry { Prometheus { port = 1 x = 2 } }", "Prometheus"),
        ("health_checks { x = 1 }", "health check"),
    ] {
        let error =
            load_text(&format!("{}\n{block}\n", GOOD.replace("EXTRA", "")), &[]).unwrap_err().to_string();
        assert!(error.contains(&format!("unknown key \"x\" in {section}")), "{error}");
    }
    let limits = refusal("experimental { ratelimit { x = 1 } }");
    assert!(limits.contains("unknown key \"x\" in ratelimit"), "{limits}");
}

#[test]
fn lax_blocks_warn_as_spire_does_not() {
    let config = with("experimental { nonsense = 1 }").unwrap();
    assert!(config.warnings.iter().any(|warning| warning.contains("nonsense")), "{:?}", config.warnings);
}

#[test]
fn delegates_are_workloads_of_the_own_trust_domain() {
    let config = with("authorized_delegates = [\"spiffe://example.org/cilium-agent\"]").unwrap();
    assert_eq!(config.authorized_delegates.len(), 1);
    for (id, reason) in [
        ("spiffe://other.org/d", "trust domain \"example.org\""),
        ("spiffe://example.org", "trust domain \"example.org\""),
        ("cilium-agent", "scheme is missing or invalid"),
    ] {
        let error = refusal(&format!("authorized_delegates = [\"{id}\"]"));
        assert!(error.contains("error validating authorized delegate") && error.contains(reason), "{error}");
    }
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    for (extra, name) in [
        ("profiling_enabled = true", "profiling_enabled"),
        ("profiling_port = 1", "profiling_port"),
        ("experimental { broker { socket_path = \"/x\" } }", "broker"),
    ] {
        let error = refusal(extra);
        assert!(
            error.contains(name) && error.contains("agent.conf:7:") && error.contains("not supported"),
            "{error}"
        );
    }
    for (old, new, name) in [
        ("NodeAttestor \"join_token\" { plugin_data {} }", "NodeAttestor \"k8s_psat\" {}", "k8s_psat"),
        (
            "KeyManager \"memory\" { plugin_data {} }",
            "KeyManager \"memory\" { plugin_cmd = \"/x\" }",
            "plugin_cmd",
        ),
    ] {
        let error = load_text(&GOOD.replace("EXTRA", "").replace(old, new), &[]).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    assert!(with("rebootstrap_mode = \"never\" disable_sds_api = true").is_ok());
}

#[test]
fn feature_flags_are_spires() {
    let config = with("experimental { feature_flags = [\"wit-svid\", \"i_am_a_test_flag\"] }").unwrap();
    assert!(config.workload.wit_svids);
    assert!(config.warnings.iter().any(|w| w == "Developer feature flag \"wit-svid\" has been enabled"));
    let error = refusal("experimental { feature_flags = [\"wit-svid\", \"y\", \"x\"] }");
    assert!(error.contains("error loading feature flags: unknown feature flag(s): [x y]"), "{error}");
    assert!(!with("experimental { feature_flags = [] }").unwrap().workload.wit_svids);
}

#[test]
fn post_quantum_key_exchange_can_be_required() {
    assert!(with("experimental { require_pq_kem = true }").unwrap().require_pq_kem);
    assert!(!with("").unwrap().require_pq_kem);
}

#[test]
fn bad_values_say_what_and_where() {
    for (extra, part) in [
        ("server_port = 70000", "70000"),
        ("log_level = \"loud\"", "loud"),
        ("log_format = \"xml\"", "xml"),
        ("x509_svid_cache_max_size = -1", "x509_svid_cache_max_size should not be negative"),
        ("workload_x509_svid_key_type = \"rsa-4096\"", "rsa-4096"),
        ("availability_target = \"1h\"", "24h"),
        ("experimental { workload_wait_timeout = \"5s\" }", "less than 5s"),
        ("experimental { sync_interval = \"soon\" }", "sync_interval"),
        ("experimental { jwt_svid_cache_hit_timeout = \"1s\" }", "jwt_svid_cache_hit_timeout"),
        ("experimental { sealed_state = \"tpm\" }", "sealed_state: \"tpm\" is unknown; must be one of [auto"),
        (
            "experimental { sealed_state = \"off\" sealed_state_key_path = \"/x\" }",
            "sealed_state_key_path: goes with sealed_state",
        ),
        ("admin_socket_path = \"/tmp/spire-agent/public/admin.sock\"", "admin socket"),
        ("join_token = \"a\" join_token_file = \"b\"", "only one of join_token or join_token_file"),
        ("join_token_file = \"/does/not/exist\"", "/does/not/exist"),
        ("trust_bundle_path = \"x\"", "only one of insecure_bootstrap or trust_bundle_path"),
        ("trust_bundle_format = \"der\"", "trust_bundle_format"),
        ("allow_unauthenticated_verifiers = 3", "agent.conf:7:"),
    ] {
        let error = refusal(extra);
        assert!(error.contains(part), "{extra}: {error}");
    }
}

#[test]
fn required_options_and_sections() {
    let without =
        |line: &str| load_text(&GOOD.replace("EXTRA", "").replace(line, ""), &[]).unwrap_err().to_string();
    assert_eq!(without("server_address = \"localhost\""), "server_address must be configured");
    assert_eq!(without("server_port = \"8081\""), "server_port must be configured");
    assert_eq!(without("trust_domain = \"example.org\""), "trust_domain must be configured");
    assert!(
        without("insecure_bootstrap = true").contains("must be configured unless insecure_bootstrap is set")
    );
    assert_eq!(load_text("plugins {}", &[]).unwrap_err().to_string(), "agent section must be configured");
    assert!(
        without("NodeAttestor \"join_token\" { plugin_data {} }").contains("expected exactly 1 but got 0")
    );
}

#[test]
fn bootstrap_urls_are_checked() {
    let url = |options: &str| {
        load_text(&GOOD.replace("insecure_bootstrap = true", "").replace("EXTRA", options), &[])
    };
    assert!(url("trust_bundle_url = \"https://x/b\"").is_ok());
    let socket = "trust_bundle_unix_socket = \"/s\"";
    assert!(url(&format!("trust_bundle_url = \"http://x/b?a=1\" {socket}")).is_ok());
    for (options, part) in [
        ("trust_bundle_url = \"http://x/b\"".to_owned(), "https://"),
        (format!("trust_bundle_url = \"https://x/b\" {socket}"), "http://"),
        (format!("trust_bundle_url = \"http://x/?spire-a=1\" {socket}"), "spire-"),
        (format!("trust_bundle_path = \"x\" {socket}"), "so must be trust_bundle_url"),
    ] {
        let error = url(&options).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn another_workload_api_gives_the_bundle_alone() {
    let from = "trust_bundle_spiffe_workload_api = \"unix:///run/other.sock\"";
    let load = |options: &str| {
        load_text(&GOOD.replace("insecure_bootstrap = true", "").replace("EXTRA", options), &[])
    };
    let config = load(from).unwrap();
    assert_eq!(config.trust, TrustConfig::WorkloadApi("unix:///run/other.sock".parse().unwrap()));
    assert!(load("trust_bundle_spiffe_workload_api = \"tcp://127.0.0.1:80\"").is_ok());
    for (more, message) in [
        (
            "insecure_bootstrap = true",
            "only one of insecure_bootstrap or trust_bundle_spiffe_workload_api can be specified, not both",
        ),
        (
            "trust_bundle_url = \"https://x\"",
            "only one of trust_bundle_url or trust_bundle_spiffe_workload_api can be specified, not both",
        ),
        (
            "trust_bundle_path = \"/x\"",
            "only one of trust_bundle_path or trust_bundle_spiffe_workload_api can be specified, not both",
        ),
        (
            "trust_bundle_unix_socket = \"/x\"",
            "trust_bundle_unix_socket can not be used with trust_bundle_spiffe_workload_api",
        ),
    ] {
        assert_eq!(load(&format!("{from} {more}")).unwrap_err().to_string(), message);
    }
    let error = load("trust_bundle_spiffe_workload_api = \"/run/x\"").unwrap_err().to_string();
    assert!(
        error.starts_with(
            "trust_bundle_spiffe_workload_api is not a valid SPIFFE Workload API endpoint address: "
        ),
        "{error}"
    );
}

#[test]
fn rebootstrapping_is_spires() {
    let load = |options: &str, flags: &[&str]| {
        let bundle = "trust_bundle_path = \"/b\"";
        load_text(&GOOD.replace("insecure_bootstrap = true", bundle).replace("EXTRA", options), flags)
    };
    let config = load("", &[]).unwrap();
    assert_eq!(config.patience, Patience { rebootstrap: Rebootstrap::Never, delay: 600_000 });
    assert!(config.recovers);
    let config = load("rebootstrap_mode = \"auto\" rebootstrap_delay = \"5s\"", &[]).unwrap();
    assert_eq!(config.patience, Patience { rebootstrap: Rebootstrap::Auto, delay: 5_000 });
    let flags = ["-rebootstrapMode", "always", "-rebootstrapDelay", "1m"];
    let config = load("rebootstrap_mode = \"auto\" rebootstrap_delay = \"5s\"", &flags).unwrap();
    assert_eq!(config.patience, Patience { rebootstrap: Rebootstrap::Always, delay: 60_000 });
    let error = load("rebootstrap_mode = \"often\"", &[]).unwrap_err().to_string();
    assert_eq!(error, "unknown rebootstrap mode specified: often");
    let error = with("rebootstrap_mode = \"auto\"").unwrap_err().to_string();
    assert_eq!(error, "insecure_bootstrap option can not be used with rebootstrapping");
    let config = load("experimental { recover_in_process = false }", &[]).unwrap();
    assert!(!config.recovers);
}

#[test]
fn node_attestors_are_checked() {
    let attestor = |name: &str, data: &str| {
        let plugin = format!("NodeAttestor \"{name}\" {{ plugin_data {{ {data} }} }}");
        let text =
            GOOD.replace("EXTRA", "").replace("NodeAttestor \"join_token\" { plugin_data {} }", &plugin);
        load_text(&text, &[])
    };
    for (name, data) in [
        ("x509pop", "private_key_path = \"/k\" certificate_path = \"/c\" intermediates_path = \"/i\""),
        ("x509pop", "spiffe_endpoint_socket = \"unix:///run/api.sock\""),
        ("sshpop", ""),
        ("sshpop", "host_key_path = \"/k\" host_cert_path = \"/c\""),
        ("http_challenge", ""),
        ("http_challenge", "hostname = \"n1\" agentname = \"a\" port = 80 advertised_port = 8080"),
    ] {
        let config = attestor(name, data).unwrap();
        assert_ne!(config.attestor, AttestorConfig::JoinToken, "{name} {data}");
    }
    for (name, data, says) in [
        ("x509pop", "", "private_key_path is required"),
        ("x509pop", "private_key_path = \"/k\"", "certificate_path is required"),
        ("x509pop", "spiffe_endpoint_socket = \"/run/api.sock\"", "spiffe_endpoint_socket"),
        ("http_challenge", "port = 70000", "port is no port"),
    ] {
        let message = attestor(name, data).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}

fn workload_attestor(block: &str) -> Result<Config, LoadError> {
    let unix = "WorkloadAttestor \"unix\" { plugin_data { discover_workload_path = true } }";
    load_text(&GOOD.replace("EXTRA", "").replace(unix, block), &[])
}

#[test]
fn workload_attestors_are_all_taken() {
    let config = workload_attestor(
        r#"WorkloadAttestor "systemd" { plugin_data {} }
        WorkloadAttestor "docker" { plugin_data {
            docker_socket_path = "unix:///d.sock" podman_socket_path = "unix:///p.sock"
            podman_socket_path_template = "unix:///u/%d.sock" docker_version = "1.41"
            use_new_container_locator = true verbose_container_locator_logs = true
        } }
        WorkloadAttestor "unix" { plugin_data {} }"#,
    )
    .unwrap();
    let [
        WorkloadAttestorConfig::Systemd(_),
        WorkloadAttestorConfig::Docker(docker),
        WorkloadAttestorConfig::Unix(_),
    ] = &*config.workload_attestors
    else {
        panic!("{:?}", config.workload_attestors)
    };
    assert_eq!(docker.docker_socket, PathBuf::from("/d.sock"));
    assert_eq!(docker.rootless_podman.as_ref().unwrap().of(7), PathBuf::from("/u/7.sock"));
    assert!(docker.verbose && docker.docker_version.is_some() && docker.matchers.is_none());
    let legacy = workload_attestor(
        r#"WorkloadAttestor "docker" { plugin_data {
            use_new_container_locator = false container_id_cgroup_matchers = ["/docker/<id>"]
        } }"#,
    )
    .unwrap();
    assert!(legacy.warnings.iter().any(|w| w.starts_with("Using the legacy container locator")));
}

#[test]
fn what_the_docker_attestor_cannot_do_is_refused_by_name() {
    for (data, why) in [
        ("sigstore { rekor_url = \"https://x\" }", "sigstore is not supported"),
        ("docker_host = \"npipe:////./pipe/docker_engine\"", "unknown configurations detected: docker_host"),
        ("docker_socket_path = \"tcp://127.0.0.1:2375\"", "names no Unix socket"),
        ("container_id_cgroup_matchers = [\"/docker/<id>\"]", "cannot both be used"),
        ("podman_socket_path_template = \"unix:///x\"", "invalid podman_socket_path_template"),
    ] {
        let block = format!("WorkloadAttestor \"docker\" {{ plugin_data {{ {data} }} }}");
        let error = workload_attestor(&block).unwrap_err().to_string();
        assert!(error.contains("failed to configure plugin \"docker\"") && error.contains(why), "{error}");
    }
    assert!(workload_attestor("WorkloadAttestor \"systemd\" { plugin_data { x = 1 } }").is_err());
}

#[test]
fn memory_has_bounds_of_its_own() {
    let config = with("").unwrap();
    assert_eq!((config.svid_cache_max_bytes, config.slow_reader_timeout.as_secs()), (usize::MAX, 60));
    let config =
        with("experimental { svid_cache_max_bytes = 8388608 slow_reader_timeout = \"5m\" }").unwrap();
    assert_eq!((config.svid_cache_max_bytes, config.slow_reader_timeout.as_secs()), (8 << 20, 300));
    assert_eq!(with("experimental { svid_cache_max_bytes = 0 }").unwrap().svid_cache_max_bytes, usize::MAX);
    for (extra, part) in [
        ("experimental { svid_cache_max_bytes = -1 }", "must not be negative; 0 is no limit"),
        ("experimental { slow_reader_timeout = \"500ms\" }", "must be at least 1s"),
        ("experimental { slow_reader_timeout = \"-1s\" }", "must not be negative"),
    ] {
        let error = refusal(extra);
        assert!(error.contains(part) && error.contains("agent.conf:7:"), "{error}");
    }
}

#[test]
fn calls_can_be_limited_for_each_method() {
    let limits = with(
        "experimental { ratelimit { fetch_x509_svid = 1 fetch_jwt_svid = 2 fetch_x509_bundles = 3 \
         fetch_jwt_bundles = 4 stream_secrets = 5 fetch_secrets = 6 } }",
    );
    let limits = limits.unwrap().workload.rate_limits;
    assert_eq!((limits.fetch_x509_svid, limits.fetch_jwt_svid, limits.fetch_x509_bundles), (1, 2, 3));
    assert_eq!((limits.fetch_jwt_bundles, limits.stream_secrets, limits.fetch_secrets), (4, 5, 6));
    assert_eq!(with("").unwrap().workload.rate_limits, RateLimits::default());
    let error = refusal("experimental { ratelimit { fetch_secrets = -1 } }");
    assert!(error.contains("experimental.ratelimit.fetch_secrets must not be negative"), "{error}");
}
