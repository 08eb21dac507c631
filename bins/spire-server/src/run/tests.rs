//! The whole program on port 0.

use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;

use steeple_proto::spire::api::server::bundle::v1::GetBundleRequest;
use steeple_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use steeple_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use steeple_proto::spire::api::server::entry::v1::{BatchCreateEntryRequest, CountEntriesRequest};
use steeple_proto::spire::api::types;
use steeple_runtime::logs::{self, LogConfig};
use steeple_runtime::shutdown::Shutdown;

use super::*;

fn config(dir: &Path, extra: &str) -> Config {
    let text = format!(
        r#"
        server {{ trust_domain = "example.org" data_dir = "{d}/data" bind_address = "127.0.0.1" socket_path = "{d}/private/api.sock" }}
        plugins {{
          DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{d}/data/db.sqlite3" }} }}
          KeyManager "disk" {{ plugin_data {{ keys_path = "{d}/data/keys.json" }} }}
          NodeAttestor "join_token" {{}}
        }}
        {extra}
        "#,
        d = dir.display()
    );
    let path = dir.join("server.conf");
    std::fs::write(&path, text).unwrap();
    let mut config = Config::load("run", &["-config".to_owned(), path.display().to_string()]).unwrap();
    config.bind_port = 0;
    config
}

fn log() -> LogHandle {
    static LOG: OnceLock<LogHandle> = OnceLock::new();
    LOG.get_or_init(|| {
        let level = steeple_runtime::logs::LogLevel::Error;
        logs::init(LogConfig { level, ..LogConfig::default() }).unwrap()
    })
    .clone()
}

/// A server that is up, and its tasks.
struct Running {
    bound: Bound,
    tasks: TaskGroup,
}

impl std::ops::Deref for Running {
    type Target = Bound;

    fn deref(&self) -> &Bound {
        &self.bound
    }
}

async fn start(config: Config) -> anyhow::Result<Running> {
    let tasks = TaskGroup::new(Shutdown::new());
    Ok(Running { bound: build(config, log(), tasks.clone()).await?, tasks })
}

async fn stop(running: Running) {
    running.tasks.shutdown().request("test is over");
    DAEMON.until_stopped(&running.tasks).await.unwrap();
}

fn api(bound: &Bound) -> tonic::transport::Channel {
    let path = bound.socket.display().to_string();
    steeple_cli::connect::connect_unix(&path, &path).unwrap()
}

async fn refused(config: Config) -> String {
    match start(config).await {
        Ok(_) => panic!("it started"),
        Err(e) => format!("{e:#}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_stops_and_comes_back_with_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let bound = start(config(dir.path(), "")).await.unwrap();
    assert_ne!(bound.tcp.port(), 0);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&bound.socket), 0o770);
    assert_eq!(mode(bound.socket.parent().unwrap()), 0o750);
    let first =
        BundleClient::new(api(&bound)).get_bundle(GetBundleRequest::default()).await.unwrap().into_inner();
    let id =
        |path: &str| Some(types::Spiffeid { trust_domain: "example.org".to_owned(), path: path.to_owned() });
    let entry = types::Entry {
        spiffe_id: id("/w"),
        parent_id: id("/spire/server"),
        selectors: vec![types::Selector { r#type: "a".to_owned(), value: "b".to_owned() }],
        ..Default::default()
    };
    let request = BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
    EntryClient::new(api(&bound)).batch_create_entry(request).await.unwrap();
    let socket = bound.socket.clone();
    stop(bound).await;
    assert!(!socket.exists());

    let bound = start(config(dir.path(), "")).await.unwrap();
    let again =
        BundleClient::new(api(&bound)).get_bundle(GetBundleRequest::default()).await.unwrap().into_inner();
    assert_eq!(first, again, "the same authorities");
    let count = EntryClient::new(api(&bound)).count_entries(CountEntriesRequest::default()).await.unwrap();
    assert_eq!(count.into_inner().count, 1);
    stop(bound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_and_metrics_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(
        dir.path(),
        "health_checks { listener_enabled = true bind_address = \"127.0.0.1\" bind_port = \"1\" }
         telemetry { Prometheus { host = \"127.0.0.1\" port = 0 } }",
    );
    if let Some(health) = &mut config.health {
        health.bind_port = 0;
    }
    let bound = start(config).await.unwrap();
    let expected = r#"{"catalog.datastore":{},"server":{},"server.ca":{},"server.ca.rotator":{}}"#;
    // The first round of checks may be under way.
    let mut answer = String::new();
    for _ in 0..100 {
        answer = get(bound.health.unwrap(), "/ready").await;
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(expected), "{answer}");
    assert!(get(bound.health.unwrap(), "/live").await.ends_with(expected));
    let metrics = get(bound.prometheus.unwrap(), "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    // SPIRE's names, as dashboards look for them.
    for name in [
        "ca_manager_x509_ca_prepare{",
        "ca_manager_x509_ca_prepare_elapsed_time_sum{",
        "ca_manager_jwt_key_prepare{",
        "ca_manager_x509_ca_activate{",
        "manager_jwt_key_activate{",
        "manager_x509_ca_rotate_expiration{",
        "manager_x509_ca_rotate_ttl{",
        "datastore_bundle_append{",
        "datastore_bundle_fetch{",
        "datastore_ca_journal_set{",
        "server_key_manager_generate_key{",
        "server_key_manager_get_public_keys{",
        "svid_rotate{",
        "rpc_bundle_v1_bundle_get_bundle{",
        "started{",
        "uptime_in_ms{",
    ] {
        assert!(metrics.contains(&format!("\nspire_server_{name}")), "{name} is not in\n{metrics}");
    }
    stop(bound).await;
}

async fn get(addr: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_socket_is_refused_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let bound = start(config(dir.path(), "")).await.unwrap();
    let message = refused(config(dir.path(), "")).await;
    assert!(
        message.contains("api.sock is in use by another process; stop it or choose another path"),
        "{message}"
    );
    // The first one still serves.
    BundleClient::new(api(&bound)).get_bundle(GetBundleRequest::default()).await.unwrap();
    stop(bound).await;

    // What a killed server leaves behind: a socket nobody listens on.
    let socket = dir.path().join("private/api.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let bound = start(config(dir.path(), "")).await.unwrap();
    BundleClient::new(api(&bound)).get_bundle(GetBundleRequest::default()).await.unwrap();
    stop(bound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_opened_is_named_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut busy = config(dir.path(), "");
    busy.bind_port = taken.local_addr().unwrap().port();
    let message = refused(busy).await;
    assert!(
        message.contains("cannot listen on 127.0.0.1:")
            && message.contains("or set bind_address and bind_port"),
        "{message}"
    );

    // Not even root can write here.
    let mut unwritable = config(dir.path(), "");
    unwritable.data_dir = "/proc/steeple".into();
    let message = refused(unwritable).await;
    assert!(message.contains("cannot create data directory /proc/steeple"), "{message}");
    let mut unwritable = config(dir.path(), "");
    unwritable.data_dir = "/proc/self".into();
    let message = refused(unwritable).await;
    assert!(
        message.contains("data directory /proc/self is not writable; check its owner and mode"),
        "{message}"
    );

    let mut file = config(dir.path(), "");
    file.socket_path = dir.path().join("server.conf");
    let message = refused(file).await;
    assert!(message.contains("exists and is not a socket"), "{message}");

    let mut broken = config(dir.path(), "");
    let keys = dir.path().join("broken.json");
    std::fs::write(&keys, "{").unwrap();
    broken.plugins.key_manager = KeyManagerConfig::Disk { keys_path: keys };
    let message = refused(broken).await;
    assert!(message.contains("broken.json"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_trust_domain_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bound = start(config(dir.path(), "")).await.unwrap();
    let id =
        |path: &str| Some(types::Spiffeid { trust_domain: "example.org".to_owned(), path: path.to_owned() });
    let entry = types::Entry {
        spiffe_id: id("/w"),
        parent_id: id("/spire/server"),
        selectors: vec![types::Selector { r#type: "a".to_owned(), value: "b".to_owned() }],
        ..Default::default()
    };
    let request = BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
    EntryClient::new(api(&bound)).batch_create_entry(request).await.unwrap();
    stop(bound).await;
    let path = dir.path().join("server.conf").display().to_string();
    let args = ["-config".to_owned(), path, "-trustDomain=other.org".to_owned()];
    let mut other = Config::load("run", &args).unwrap();
    other.bind_port = 0;
    let message = refused(other).await;
    assert!(message.contains("registration entries are of trust domain \"example.org\""), "{message}");
}

/// Two servers, each with its own keys, on one SQLite file: what one writes, the other serves.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_database_agree() {
    let (first_dir, second_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = start(config(first_dir.path(), "")).await.unwrap();
    let mut second = config(second_dir.path(), "");
    second.plugins.database = config(first_dir.path(), "").plugins.database;
    let second = start(second).await.unwrap();
    let own = |bound: &Bound| {
        let mut client = BundleClient::new(api(bound));
        async move { client.get_bundle(GetBundleRequest::default()).await.unwrap().into_inner() }
    };
    let expected = own(&second).await;
    assert_eq!(expected.x509_authorities.len(), 2, "each server has its own root");
    for _ in 0..200 {
        if own(&first).await == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(own(&first).await, expected, "the first one learns of the second one's root");
    let id =
        |path: &str| Some(types::Spiffeid { trust_domain: "example.org".to_owned(), path: path.to_owned() });
    let entry = |path: &str| types::Entry {
        spiffe_id: id(path),
        parent_id: id("/spire/server"),
        selectors: vec![types::Selector { r#type: "a".to_owned(), value: "b".to_owned() }],
        ..Default::default()
    };
    for (bound, path) in [(&first, "/one"), (&second, "/two"), (&first, "/three"), (&second, "/one")] {
        let request = BatchCreateEntryRequest { entries: vec![entry(path)], output_mask: None };
        EntryClient::new(api(bound)).batch_create_entry(request).await.unwrap();
    }
    for bound in [&first, &second] {
        let count = EntryClient::new(api(bound)).count_entries(CountEntriesRequest::default()).await.unwrap();
        assert_eq!(count.into_inner().count, 3);
    }
    stop(first).await;
    stop(second).await;
}
