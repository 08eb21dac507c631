use std::io::Write;

use steeple_runtime::logs::{LogFormat, LogLevel};
use steeple_spiffe::KeyType;

use steeple_datastore_sql::{DatabaseConfig, NetworkConfig, ServerKind, SqliteConfig};

use super::*;

const PLUGINS: &str = r#"
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "/data/db.sqlite3" } }
  KeyManager "memory" { plugin_data {} }
  NodeAttestor "join_token" { plugin_data {} }
}
"#;

const SERVER: &str = "trust_domain = \"example.org\"\n data_dir = \"/data\"\n";

/// A file with these options in `server {}` and these blocks beside it.
fn load(server: &str, rest: &str, flags: &[&str]) -> Result<Config, LoadError> {
    text(&format!("server {{\n{server}\n}}\n{rest}"), flags)
}

fn text(text: &str, flags: &[&str]) -> Result<Config, LoadError> {
    let mut file = tempfile::Builder::new().prefix("server").suffix(".conf").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().display().to_string();
    let mut args = vec!["-config".to_owned(), path];
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    Config::load("run", &args)
}

fn with(options: &str) -> Result<Config, LoadError> {
    load(&format!("{SERVER}{options}"), PLUGINS, &[])
}

fn message(outcome: Result<Config, LoadError>) -> String {
    outcome.unwrap_err().to_string()
}

#[test]
fn defaults_are_spires() {
    let config = with("").unwrap();
    assert_eq!(config.trust_domain.name(), "example.org");
    assert_eq!((config.bind_address.to_string().as_str(), config.bind_port), ("0.0.0.0", 8081));
    assert_eq!(config.socket_path, PathBuf::from("/tmp/spire-server/private/api.sock"));
    assert_eq!((config.log.level, config.log.format), (LogLevel::Info, LogFormat::Default));
    assert_eq!(
        (config.ca.ca_ttl, config.ca.default_x509_svid_ttl, config.ca.default_jwt_svid_ttl),
        (86_400, 3_600, 300)
    );
    assert_eq!(
        (config.ca.ca_key_type, config.ca.jwt_key_type, config.ca.agent_ttl),
        (KeyType::EcP256, KeyType::EcP256, 3_600)
    );
    assert_eq!(config.limits, RateLimitConfig { attestation: true, signing: true });
    assert!(config.health.is_none() && config.telemetry.is_none() && config.prune_agents.is_none());
    assert_eq!(config.plugins.key_manager, KeyManagerConfig::Memory);
    assert!(config.plugins.join_token && config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn every_option_is_read() {
    let config = load(
        r#"
        trust_domain = "example.org"
        data_dir = "/data"
        bind_address = "[::1]"
        bind_port = "9000"
        socket_path = "/run/api.sock"
        admin_ids = ["spiffe://other.org/admin"]
        agent_ttl = "2h"
        audit_log_enabled = true
        ca_key_type = "rsa-2048"
        jwt_key_type = "ec-p384"
        ca_subject { country = ["FR"] organization = ["O"] common_name = "CN" }
        ca_ttl = "720h"
        default_x509_svid_ttl = "30m"
        default_jwt_svid_ttl = "1m"
        disable_jwt_svids = true
        jwt_issuer = "https://issuer"
        log_file = "/log"
        log_format = "json"
        log_level = "warn"
        log_source_location = true
        max_attested_node_info_staleness = "10s"
        prune_attested_nodes_expired_for = "24h"
        prune_attested_nodes_batch_size = 10
        prune_tofu_nodes = true
        ratelimit { attestation = false signing = false }
        profiling_enabled = false
        experimental { require_pq_kem = false feature_flags = [] }
        "#,
        r#"
        plugins {
          DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "x" } }
          KeyManager "disk" { plugin_data { keys_path = "/keys.json" } }
        }
        telemetry {
          EnableTrustDomainLabel = true
          EnableHostnameLabel = false
          MetricPrefix = "mine"
          Prometheus { host = "0.0.0.0" port = 9988 }
        }
        health_checks { listener_enabled = true bind_address = "[::]" bind_port = "8080" live_path = "/l" ready_path = "/r" }
        "#,
        &[],
    )
    .unwrap();
    assert_eq!((config.bind_address.to_string().as_str(), config.bind_port), ("::1", 9000));
    assert_eq!(config.admin_ids[0].as_str(), "spiffe://other.org/admin");
    assert_eq!(
        (config.ca.agent_ttl, config.ca.ca_ttl, config.ca.default_x509_svid_ttl),
        (7_200, 2_592_000, 1_800)
    );
    assert_eq!((config.ca.ca_key_type, config.ca.jwt_key_type), (KeyType::Rsa2048, KeyType::EcP384));
    assert_eq!(config.ca.ca_subject.common_name, "CN");
    assert!(config.audit_log && config.ca.disable_jwt_svids && config.log.source_location);
    assert_eq!(config.ca.jwt_issuer, "https://issuer");
    assert_eq!((config.log.level, config.log.format), (LogLevel::Warn, LogFormat::Json));
    assert_eq!(config.prune_agents, Some(PruneAgents { expired_for: 86_400, batch: 10, tofu: true }));
    assert_eq!(config.limits, RateLimitConfig { attestation: false, signing: false });
    let telemetry = config.telemetry.unwrap();
    assert_eq!(
        (telemetry.sinks.prometheus, telemetry.metrics.prefix.as_str()),
        (Some(("0.0.0.0".to_owned(), 9988)), "mine")
    );
    assert_eq!(telemetry.metrics.trust_domain_label.as_deref(), Some("example.org"));
    assert!(!telemetry.metrics.hostname_label);
    let health = config.health.unwrap();
    assert_eq!(
        (health.bind_address.as_str(), health.bind_port, health.live_path.as_str()),
        ("::", 8080, "/l")
    );
    assert_eq!(config.plugins.key_manager, KeyManagerConfig::Disk { keys_path: "/keys.json".into() });
    assert!(!config.plugins.join_token);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let flags = [
        "-bindAddress=127.0.0.1",
        "-serverPort",
        "9001",
        "-dataDir=/flag",
        "-logFile=/flag.log",
        "-logFormat=text",
        "-logLevel=debug",
        "-logSourceLocation",
        "-trustDomain=flag.org",
        "-socketPath=/flag.sock",
    ];
    let config = load(&format!("{SERVER} log_level = \"error\"\n bind_port = 1"), PLUGINS, &flags).unwrap();
    assert_eq!((config.bind_address.to_string().as_str(), config.bind_port), ("127.0.0.1", 9001));
    assert_eq!((config.data_dir, config.socket_path), (PathBuf::from("/flag"), PathBuf::from("/flag.sock")));
    assert_eq!(config.trust_domain.name(), "flag.org");
    assert_eq!((config.log.level, config.log.format), (LogLevel::Debug, LogFormat::Text));
    assert_eq!(config.log.file, Some(PathBuf::from("/flag.log")));
    assert!(config.log.source_location);
    // An empty flag is none, as in SPIRE.
    assert_eq!(load(SERVER, PLUGINS, &["-trustDomain="]).unwrap().trust_domain.name(), "example.org");
}

#[test]
fn variables_are_expanded_if_asked_for() {
    // Cargo sets this one for tests.
    let server = "trust_domain = \"${CARGO_PKG_NAME}\"\n data_dir = \"/d\"";
    let config = load(server, PLUGINS, &["-expandEnv"]).unwrap();
    assert_eq!(config.trust_domain.name(), env!("CARGO_PKG_NAME"));
    assert!(
        message(load(server, PLUGINS, &[])).starts_with("could not parse trust_domain \"${CARGO_PKG_NAME}\"")
    );
}

#[test]
fn json_is_read_like_hcl() {
    let config = text(
        r#"{"server": {"trust_domain": "example.org", "data_dir": "/d", "bind_port": 9002},
            "plugins": {"DataStore": [{"sql": {"plugin_data": {"database_type": "sqlite3", "connection_string": "x"}}}],
                        "KeyManager": [{"memory": {"plugin_data": {}}}]}}"#,
        &[],
    )
    .unwrap();
    let sqlite = DatabaseConfig::Sqlite(SqliteConfig::new("x"));
    assert_eq!((config.bind_port, config.plugins.database), (9002, sqlite));
}

#[test]
fn an_unknown_key_is_named_with_its_place() {
    let cases = [
        (with("typo = 1"), "server", "typo", "4:1"),
        (with("ca_subject { typo = 1 }"), "ca_subject", "typo", "4:14"),
        (with("ratelimit { typo = 1 }"), "ratelimit", "typo", "4:13"),
        (load(SERVER, &format!("{PLUGINS} typo {{}}"), &[]), "top-level", "typo", "12:2"),
        (
            load(SERVER, &format!("{PLUGINS} health_checks {{ typo = 1 }}"), &[]),
            "health check",
            "typo",
            "12:18",
        ),
        (
            load(SERVER, &format!("{PLUGINS} telemetry {{ Prometheus {{ port = 1 typo = 1 }} }}"), &[]),
            "Prometheus",
            "typo",
            "12:36",
        ),
    ];
    for (outcome, section, key, place) in cases {
        let message = message(outcome);
        assert!(message.starts_with("unknown configuration detected: "), "{message}");
        assert!(message.contains(&format!(".conf:{place}: unknown key {key:?} in {section}")), "{message}");
    }
    // SPIRE does not look into these; we warn.
    for lax in ["experimental { typo = 1 }", "federation { typo = 1 }"] {
        assert!(with(lax).unwrap().warnings[0].contains("unknown key \"typo\""), "{lax}");
    }
    let config = load(SERVER, &format!("{PLUGINS} telemetry {{ typo = 1 }}"), &[]).unwrap();
    assert!(config.warnings[0].contains("unknown key \"typo\" in telemetry"));
}

#[test]
fn metrics_are_pushed_too() {
    let sinks = r#"telemetry { Statsd = [{ address = "a:1" }, { address = "b:2" }] DogStatsd { address = "c:3" } InMem {} }"#;
    let telemetry = load(SERVER, &format!("{PLUGINS} {sinks}"), &[]).unwrap().telemetry.unwrap();
    let to: Vec<&str> = telemetry.sinks.push.iter().map(|target| target.address.as_str()).collect();
    assert_eq!(to, ["a:1", "b:2", "c:3"]);
    assert!(telemetry.sinks.in_memory && telemetry.sinks.prometheus.is_none());
    for (sink, expected) in [
        ("Statsd = [{}]", "host:port is required"),
        ("DogStatsd = [{ address = \"x\" }]", "host:port is required"),
        ("Statsd = [{ address = \"x:1\" typo = 1 }]", "unknown key \"typo\" in Statsd"),
        ("InMem { typo = 1 }", "unknown key \"typo\" in InMem"),
    ] {
        let message = message(load(SERVER, &format!("{PLUGINS} telemetry {{ {sink} }}"), &[]));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn experimental_options() {
    let config = with(
        r#"experimental { feature_flags = ["wit-svid", "i_am_a_test_flag"] wit_key_type = "rsa-2048" wit_issuer = "me"
           agent_spiffe_id_as_selector = true require_pq_kem = true events_based_cache = true
           cache_reload_interval = "1s" full_cache_reload_interval = "1h" prune_events_older_than = "1h"
           sql_transaction_timeout = "1m" }"#,
    )
    .unwrap();
    let wit = config.ca.wit.clone().unwrap();
    assert_eq!((wit.key_type, wit.issuer.as_str()), (KeyType::Rsa2048, "me"));
    assert!(config.agent_id_selector && config.require_pq_kem);
    let warned = |text: &str| assert!(config.warnings.iter().any(|w| w.contains(text)), "{text}");
    warned("sql_transaction_timeout is deprecated");
    warned("Experimental features have been enabled.");
    warned("Developer feature flag \"wit-svid\" has been enabled");
    let plain = with("ca_key_type = \"ec-p384\" experimental { feature_flags = [\"wit-svid\"] }").unwrap();
    assert_eq!(plain.ca.wit.unwrap().key_type, KeyType::EcP384, "the CA's, unless named");
    assert!(with("experimental { }").unwrap().ca.wit.is_none());

    let bad = [
        ("feature_flags = [\"nope\", \"wit-svid\"]", "unknown feature flag(s): [nope]"),
        ("wit_key_type = \"dsa\"", "error parsing wit_key_type"),
        ("cache_reload_interval = \"soon\"", "cache_reload_interval"),
        ("event_timeout = \"1s\" sql_transaction_timeout = \"1s\"", "only set event_timeout"),
    ];
    for (options, expected) in bad {
        let message = message(with(&format!("experimental {{ {options} }}")));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn what_spire_has_and_we_do_not_is_refused_by_name() {
    let options = [
        ("profiling_enabled = true", "server.profiling_enabled"),
        ("profiling_port = 1", "server.profiling_port"),
        ("profiling_freq = 1", "server.profiling_freq"),
        ("profiling_names = [\"heap\"]", "server.profiling_names"),
        ("proxy_protocol_trusted_cidrs = [\"10.0.0.0/8\"]", "server.proxy_protocol_trusted_cidrs"),
        ("federation { bundle_endpoint { acme {} } }", "server.federation.bundle_endpoint.acme"),
        (
            "federation { bundle_endpoint { profile \"https_web\" { acme {} } } }",
            "server.federation.bundle_endpoint.profile[\"https_web\"].acme",
        ),
        ("experimental { auth_opa_policy_engine {} }", "server.experimental.auth_opa_policy_engine"),
        ("experimental { named_pipe_name = \"x\" }", "server.experimental.named_pipe_name"),
    ];
    for (option, name) in options {
        let message = message(with(option));
        assert!(
            message.ends_with(&format!(": option \"{name}\" is not supported by this version of Steeple")),
            "{message}"
        );
        assert!(message.contains(".conf:4:"), "{message}");
    }
    for sink in ["M3 = [{}]", "Prometheus { tls {} }"] {
        let message = message(load(SERVER, &format!("{PLUGINS} telemetry {{ {sink} }}"), &[]));
        assert!(message.contains("is not supported by this version of Steeple"), "{message}");
    }
    let plugins = [
        "NodeAttestor \"k8s_psat\" { plugin_data {} }",
        "KeyManager \"aws_kms\" { plugin_data {} }",
        "UpstreamAuthority \"spire\" { plugin_data {} }",
        "Notifier \"k8sbundle\" {}",
        "BundlePublisher \"aws_s3\" {}",
        "CredentialComposer \"other\" {}",
        "NodeAttestor \"join_token\" { plugin_cmd = \"/bin/x\" }",
    ];
    for plugin in plugins {
        let message = message(load(SERVER, &format!("plugins {{ {plugin} }}"), &[]));
        assert!(message.ends_with("is not supported by this version of Steeple"), "{message}");
    }
    // A plugin that is switched off is nobody's business.
    let off = PLUGINS.replacen('{', "{ UpstreamAuthority \"vault\" { enabled = false plugin_data {} }", 1);
    assert!(load(SERVER, &off, &[]).is_ok());
}

#[test]
fn upstream_authority_and_composer_are_checked() {
    let plugins = |more: &str| load(SERVER, &PLUGINS.replacen('{', &format!("{{ {more} "), 1), &[]);
    let disk = |data: &str| format!("UpstreamAuthority \"disk\" {{ plugin_data {{ {data} }} }}");
    let none = plugins("").unwrap().plugins;
    assert!(none.upstream_authority.is_none() && !none.unique_id);
    let all = "cert_file_path = \"/c\" key_file_path = \"/k\" bundle_file_path = \"/b\"";
    let config = plugins(&format!("{} CredentialComposer \"uniqueid\" {{}}", disk(all))).unwrap().plugins;
    let upstream = config.upstream_authority.unwrap();
    assert_eq!(
        (upstream.cert_file_path.to_str(), upstream.key_file_path.to_str(), upstream.bundle_file_path),
        (Some("/c"), Some("/k"), Some("/b".into()))
    );
    assert!(config.unique_id);
    for (data, problem) in [
        ("", "'cert_file_path' and 'key_file_path' must be set and not empty"),
        ("cert_file_path = \"/c\"", "'cert_file_path' and 'key_file_path' must be set and not empty"),
        ("cert_file_path = \"\" key_file_path = \"/k\"", "must be set and not empty"),
    ] {
        let message = message(plugins(&disk(data)));
        assert!(
            message.contains("failed to configure plugin \"disk\"") && message.ends_with(problem),
            "{message}"
        );
    }
    let message = message(plugins("CredentialComposer \"uniqueid\" { plugin_data { x = 1 } }"));
    assert!(message.contains("uniqueid"), "{message}");
}

#[test]
fn data_store_and_key_manager_are_checked() {
    let store = |data: &str| {
        let plugins = format!(
            "plugins {{ DataStore \"sql\" {{ plugin_data {{ {data} }} }} KeyManager \"memory\" {{}} }}"
        );
        message(load(SERVER, &plugins, &[]))
    };
    assert!(store("").ends_with("datastore-sql: database_type must be set"));
    assert!(store("database_type = \"sqlite3\"").ends_with("datastore-sql: connection_string must be set"));
    assert!(store("database_type = \"oracle\" connection_string = \"x\"").contains("oracle"));
    assert!(store("database_type = \"postgres\"").ends_with("datastore-sql: connection_string must be set"));
    let mysql = "database_type = \"mysql\" connection_string = \"u:secret@tcp(h:1)/d\"";
    assert!(store(mysql).contains("missing parseTime=true") && !store(mysql).contains("secret"));
    let aws = "database_type \"aws_mysql\" { region = \"r\" } connection_string = \"x\"";
    assert!(store(aws).contains("IAM"), "{}", store(aws));
    assert!(
        store("database_type = \"sqlite3\" connection_string = \"x\" max_open_conns = 1")
            .contains("max_open_conns")
    );
    assert!(
        store("database_type = \"sqlite3\" connection_string = \"x\" log_sql = true").contains("log_sql")
    );
    let plugins = |text: &str| message(load(SERVER, &format!("plugins {{ {text} }}"), &[]));
    let sql = "DataStore \"sql\" { plugin_data { database_type = \"sqlite3\" connection_string = \"x\" } }";
    assert_eq!(plugins("KeyManager \"memory\" {}"), "expecting a DataStore plugin");
    assert_eq!(
        plugins(sql),
        "plugin type \"KeyManager\" constraint not satisfied: expected exactly 1 but got 0"
    );
    assert_eq!(
        plugins(&format!(
            "{sql} KeyManager \"memory\" {{}} KeyManager \"disk\" {{ plugin_data {{ keys_path = \"k\" }} }}"
        )),
        "plugin type \"KeyManager\" constraint not satisfied: expected exactly 1 but got 2"
    );
    assert!(plugins(&format!("{sql} KeyManager \"disk\" {{}}")).ends_with("keys_path is required"));
    assert!(
        plugins(&format!("{sql} KeyManager \"memory\" {{ plugin_data {{ x = 1 }} }}"))
            .contains("remove its plugin_data")
    );
    assert!(plugins("DataStore \"etcd\" {}").contains("only the built-in \"sql\" plugin is supported"));
}

#[test]
fn what_is_missing_or_wrong_says_what_and_where() {
    assert_eq!(message(text(PLUGINS, &[])), "server section must be configured");
    assert_eq!(message(load(SERVER, "", &[])), "plugins section must be configured");
    assert_eq!(message(load("data_dir = \"/d\"", PLUGINS, &[])), "trust_domain must be configured");
    assert_eq!(message(load("trust_domain = \"td\"", PLUGINS, &[])), "data_dir must be configured");
    assert_eq!(
        message(load("data_dir = \"/d\"\ntrust_domain = \"No!\"", PLUGINS, &[])),
        "could not parse trust_domain \"No!\": trust domain characters are limited to lowercase letters, numbers, dots, \
         dashes, and underscores"
    );
    let cases = [
        ("bind_port = 65536", "bind_port: port 65536 is out of range (0 to 65535)"),
        ("bind_port = -1", "bind_port: port -1 is out of range (0 to 65535)"),
        ("bind_port = \"http\"", "bind_port: is not a whole number that fits 64 bits"),
        ("bind_port = true", "bind_port: expected a whole number, found a boolean"),
        ("bind_address = \"no such host.invalid\"", "could not resolve bind address"),
        ("audit_log_enabled = \"yes\"", "audit_log_enabled: expected true or false, found a string"),
        ("admin_ids = \"spiffe://td/x\"", "admin_ids: expected a list, found a string"),
        ("admin_ids = [\"nonsense\"]", "could not parse admin ID \"nonsense\": scheme is missing or invalid"),
        ("ca_ttl = \"soon\"", "ca_ttl"),
        ("ca_ttl = \"-1h\"", "must be at least one second"),
        ("agent_ttl = \"0s\"", "must be at least one second"),
        (
            "ca_key_type = \"dsa\"",
            "key type \"dsa\" is unknown; expected rsa-2048, rsa-4096, ec-p256 or ec-p384",
        ),
        ("jwt_key_type = \"dsa\"", "error parsing jwt_key_type"),
        ("log_level = \"loud\"", "could not start logger: not a valid logrus Level: \"loud\""),
        ("log_format = \"xml\"", "could not start logger: unknown logger format: \"xml\""),
        ("prune_attested_nodes_expired_for = \"-1h\"", "must not be negative"),
        ("ratelimit = 1", "ratelimit: expected a block, found a number"),
    ];
    for (option, expected) in cases {
        let message = message(with(option));
        assert!(message.contains(expected), "{option}: {message}");
    }
    assert!(message(load(SERVER, PLUGINS, &["-serverPort", "70000"])).contains("port 70000 is out of range"));
    let health = format!("{PLUGINS} health_checks {{ listener_enabled = true bind_port = \"99999\" }}");
    assert!(message(load(SERVER, &health, &[])).contains("port 99999 is out of range"));
    assert!(message(text("server {", &[])).starts_with("unable to decode configuration at "));
    let missing = Config::load("run", &["-config".to_owned(), "/no/such.conf".to_owned()]);
    assert_eq!(message(missing), "could not find config file /no/such.conf: please use the -config flag");
    assert!(matches!(load(SERVER, PLUGINS, &["-nope"]), Err(LoadError::Flags(_))));
}

#[test]
fn lifetimes_that_do_not_fit_are_worth_a_warning() {
    let config = with("ca_ttl = \"1h\"\n default_x509_svid_ttl = \"1h\"").unwrap();
    assert!(
        config.warnings[0].starts_with("default_x509_svid_ttl is too high for the configured ca_ttl value.")
    );
    let config = with("ca_subject {}").unwrap();
    assert_eq!(config.warnings, ["ca_subject configurable is set but empty; the default will be used"]);
    let long = format!("data_dir = \"/d\"\n trust_domain = \"{}\"", "a".repeat(256));
    assert!(load(&long, PLUGINS, &[]).unwrap().warnings[0].contains("less than 255 characters"));
}

#[test]
fn database_servers_take_all_keys() {
    let plugins = "plugins { KeyManager \"memory\" {} DataStore \"sql\" { plugin_data { database_type = \"postgres\" \
                   connection_string = \"host=h dbname=d\" ro_connection_string = \"host=replica dbname=d\" max_open_conns = 7 \
                   max_idle_conns = 3 conn_max_lifetime = \"90s\" disable_migration = true } } }";
    let config = load(SERVER, plugins, &[]).unwrap();
    let mut expected = NetworkConfig::new(ServerKind::Postgres, "host=h dbname=d");
    expected.ro_connection_string = Some("host=replica dbname=d".into());
    expected.max_open_conns = Some(7);
    expected.max_idle_conns = Some(3);
    expected.conn_max_lifetime = Some(std::time::Duration::from_secs(90));
    expected.disable_migration = true;
    assert_eq!(config.plugins.database, DatabaseConfig::Network(expected));
}

#[test]
fn node_attestors_are_checked() {
    let attestor = |name: &str, data: &str| {
        let plugin = format!("{{ NodeAttestor \"{name}\" {{ plugin_data {{ {data} }} }}");
        load(SERVER, &PLUGINS.replacen('{', &plugin, 1), &[])
    };
    for (name, data) in [
        ("x509pop", "mode = \"spiffe\""),
        ("x509pop", "mode = \"spiffe\" svid_prefix = \"/a\" max_intermediates = 2 verify_client_ip = true"),
        ("x509pop", "mode = \"spiffe\" spiffe_prefix = \"/a\""),
        ("http_challenge", ""),
        ("http_challenge", "allowed_dns_patterns = [\"a\"] required_port = 80 tofu = false"),
        (
            "sshpop",
            "cert_authorities = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\"]",
        ),
    ] {
        let config = attestor(name, data).unwrap();
        assert_eq!(config.plugins.attestors.len(), 1, "{name} {data}");
        assert!(config.plugins.join_token, "the others stay");
    }
    for (name, data, says) in [
        ("x509pop", "", "one of ca_bundle_path or ca_bundle_paths must be configured"),
        ("x509pop", "ca_bundle_path = \"/does/not/exist\"", "/does/not/exist"),
        ("x509pop", "mode = \"spiffe\" svid_prefix = \"/a\" spiffe_prefix = \"/b\"", "svid_prefix"),
        ("x509pop", "mode = \"spiffe\" agent_path_template = \"/{{ .Nope }}\"", "there is no .Nope"),
        ("http_challenge", "tofu = false", "you can not turn off trust on first use (TOFU)"),
        ("http_challenge", "allowed_dns_patterns = [\"(\"]", "cannot compile allowed_dns_pattern"),
        ("sshpop", "", "missing required config value"),
    ] {
        let message = message(attestor(name, data));
        assert!(
            message.contains(says)
                && message.contains(&format!("failed to configure plugin {name:?}"))
                    | message.contains("svid_prefix"),
            "{message}"
        );
        assert!(message.contains(".conf:"), "says where: {message}");
    }
}

#[test]
fn federation_is_decoded() {
    use crate::config::ServingProfile;
    use std::path::PathBuf;
    use std::time::Duration;
    use steeple_datastore::EndpointProfile;

    let none = with("").unwrap().federation;
    assert_eq!(none, crate::config::Federation::default());
    let config = with(
        "federation { bundle_endpoint { address = \"127.0.0.1\" port = 8443 refresh_hint = \"10m\" \
         profile \"https_spiffe\" {} } \
         federates_with \"one.org\" { bundle_endpoint_url = \"https://one.org\" bundle_endpoint_profile \"https_web\" {} } \
         federates_with \"spiffe://two.org\" { bundle_endpoint_url = \"HTTPS://two.org:8443/x\" \
         bundle_endpoint_profile \"https_spiffe\" { endpoint_spiffe_id = \"spiffe://two.org/spire/server\" } } }",
    )
    .unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    let endpoint = config.federation.endpoint.unwrap();
    assert_eq!(endpoint.address.to_string(), "127.0.0.1:8443");
    assert_eq!((endpoint.refresh_hint, endpoint.profile), (600, ServingProfile::HttpsSpiffe));
    let peers: Vec<_> = config.federation.federates_with.into_iter().collect();
    assert_eq!((peers[0].0.name(), &peers[0].1.profile), ("one.org", &EndpointProfile::HttpsWeb));
    assert_eq!((peers[1].0.name(), peers[1].1.url.as_str()), ("two.org", "https://two.org:8443/x"));
    assert!(peers[1].1.is_static && peers[1].1.profile.name() == "https_spiffe");

    let config = with(
        "federation { bundle_endpoint { port = 1 profile \"https_web\" { serving_cert_file { \
         cert_file_path = \"c\" key_file_path = \"k\" file_sync_interval = \"30s\" } } } }",
    )
    .unwrap();
    let endpoint = config.federation.endpoint.unwrap();
    assert_eq!((endpoint.refresh_hint, endpoint.address.to_string().as_str()), (300, "0.0.0.0:1"));
    let web = ServingProfile::HttpsWeb {
        certificate: PathBuf::from("c"),
        key: PathBuf::from("k"),
        sync_every: Duration::from_secs(30),
    };
    assert_eq!(endpoint.profile, web);
    let config = with("federation { bundle_endpoint { port = 1 } }").unwrap();
    assert!(config.warnings[0].starts_with("Bundle endpoint is configured but has no profile set"));
    for (hint, warning) in [("24h", "set to a high value"), ("59s", "set too low")] {
        let text = format!(
            "federation {{ bundle_endpoint {{ refresh_hint = \"{hint}\" profile \"https_spiffe\" {{}} }} }}"
        );
        assert!(with(&text).unwrap().warnings[0].contains(warning));
    }
}

#[test]
fn what_federation_may_not_say() {
    let peer = |inside: &str| format!("federation {{ federates_with \"x.org\" {{ {inside} }} }}");
    let url = "bundle_endpoint_url = \"https://x.org\"";
    let endpoint = |inside: &str| format!("federation {{ bundle_endpoint {{ port = 1 {inside} }} }}");
    let cases = [
        (peer(""), "federation.federates_with[\"x.org\"].bundle_endpoint_url must be configured"),
        (
            peer("bundle_endpoint_url = \"http://x.org\""),
            "bundle_endpoint_url must use the HTTPS protocol; URL found: \"http://x.org\"",
        ),
        (peer("bundle_endpoint_url = \"https://u@x.org\""), "bundle endpoint URL must not contain user info"),
        (
            peer(url),
            "federation configuration for trust domain \"x.org\": missing bundle endpoint configuration",
        ),
        (
            peer(&format!("{url} bundle_endpoint_profile \"https_spiffe\" {{}}")),
            "error parsing federation relationship for trust domain \"x.org\": could not get endpoint SPIFFE ID: ",
        ),
        (
            peer(&format!("{url} bundle_endpoint_profile \"other\" {{}}")),
            "no bundle endpoint profile defined; current supported profiles are",
        ),
        (
            peer(&format!(
                "{url} bundle_endpoint_profile \"https_web\" {{}} bundle_endpoint_profile \"https_spiffe\" {{}}"
            )),
            "exactly one bundle endpoint profile is expected",
        ),
        (
            format!("federation {{ federates_with \"X\" {{ {url} }} }}"),
            "federation.federates_with[\"X\"]: invalid trust domain: ",
        ),
        (
            format!("federation {{ federates_with \"example.org\" {{ {url} }} }}"),
            "federation.federates_with[\"example.org\"] is the server's own trust domain; remove it",
        ),
        (
            endpoint("profile \"https_web\" {}"),
            "malformed https_web profile configuration: 'acme' or 'serving_cert_file' is required",
        ),
        (endpoint("profile \"https_web\" { serving_cert_file {} }"), "cert_file_path: must be configured"),
        (endpoint("profile \"x\" {}"), "unknown bundle endpoint profile \"x\" configured"),
        (
            endpoint("profile \"https_web\" {} profile \"https_spiffe\" {}"),
            "exactly one bundle endpoint profile is expected",
        ),
        (
            endpoint("acme {} profile \"https_spiffe\" {}"),
            "either bundle endpoint 'acme' or 'profile' can be set, but not both",
        ),
        (endpoint("refresh_hint = \"soon\" profile \"https_spiffe\" {}"), "refresh_hint"),
        (endpoint("typo = 1 profile \"https_spiffe\" {}"), "unknown key \"typo\" in bundle endpoint"),
    ];
    for (options, expected) in cases {
        let message = message(with(&options));
        assert!(message.contains(expected), "{options}: {message}");
        assert!(message.contains(".conf:4:"), "{message}");
    }
}
