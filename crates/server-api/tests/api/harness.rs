//! One server per test, and callers of every kind.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use steeple_datastore::model::{Agent, Entry, Selector};
use steeple_datastore::{Created, Datastore};
use steeple_datastore_sql::{SqlStore, SqliteConfig};
use steeple_plugins_base::key_manager::MemoryKeyManager;
use steeple_runtime::clock::{Clock, FakeClock};
use steeple_runtime::logs::{self, LogConfig, LogFormat, LogHandle, LogLevel};
use steeple_runtime::shutdown::Shutdown;
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use steeple_runtime::tls::{ClientTls, LiveBundles, LiveIdentity, ServerTls, ServerTrust, Servers};
use steeple_runtime::{grpc, uds};
use steeple_server_api::layer::ApiLayer;
use steeple_server_api::{Limits, RateLimitConfig, ServerState, local_routes, tcp_routes};
use steeple_server_core::admission::Priority;
use steeple_server_core::ca::{
    AgentX509Params, CaConfig, CaManager, SignedX509, WitConfig, WorkloadX509Params,
};
use steeple_server_core::federation::{Federation, Orders};
use steeple_server_core::view::View;
use steeple_spiffe::x509::{self, DistinguishedName};
use steeple_spiffe::{Certificate, KeyType, PrivateKey, SignatureAlgorithm, SpiffeId, TrustDomain};
use tokio::net::TcpListener;
use tonic::transport::Channel;

/// 2027-01-15T08:00:00Z
pub const NOW: i64 = 1_800_000_000;

#[derive(Clone)]
pub struct Options {
    pub limits: RateLimitConfig,
    pub audit: bool,
    pub join_token: bool,
    pub jwt_disabled: bool,
    pub explain_to_agents: bool,
    /// The feature flag `wit-svid`.
    pub wit: bool,
    pub agent_id_selector: bool,
    pub admin_ids: Vec<&'static str>,
    pub attestors: Vec<Arc<dyn steeple_plugin::ServerNodeAttestor>>,
    pub keys: Arc<dyn steeple_plugin::KeyManager>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: RateLimitConfig { attestation: false, signing: false },
            audit: false,
            join_token: true,
            jwt_disabled: false,
            explain_to_agents: true,
            wit: false,
            agent_id_selector: false,
            admin_ids: vec!["spiffe://example.org/admin-by-config"],
            attestors: Vec::new(),
            keys: Arc::new(MemoryKeyManager::new()),
        }
    }
}

pub struct Server {
    pub state: Arc<ServerState>,
    /// What the API orders of whoever runs federation; nobody does unless a test takes it.
    pub orders: Option<Orders>,
    pub clock: FakeClock,
    pub tasks: TaskGroup,
    tcp: SocketAddr,
    socket: PathBuf,
    bundles: LiveBundles,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.shutdown().request("test is over");
    }
}

pub async fn server() -> Server {
    start(Options::default()).await
}

pub async fn start(options: Options) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let clock = FakeClock::new(NOW);
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let store: Arc<dyn Datastore> = Arc::new(open_store(dir.path()));
    let wit = options.wit.then(|| WitConfig::new(KeyType::EcP256));
    let config = CaConfig { wit, disable_jwt_svids: options.jwt_disabled, ..CaConfig::new(td()) };
    let ca = CaManager::load(config, options.keys.clone(), store.clone(), NOW).await.unwrap();
    let ca = Arc::new(ca);
    let (view, follower) = View::open(store.clone(), td()).await.unwrap();
    let tasks = TaskGroup::new(Shutdown::new());
    tasks.spawn_until_shutdown("view", OnEnd::Log, follower.run());

    let key = pool_key(0);
    let signed = ca.sign_server_x509(key.public_key(), NOW).await.unwrap();
    let chain = Arc::new(parse(&signed));
    let identity = LiveIdentity::new();
    identity.set(&chain, &key).unwrap();
    let bundles = LiveBundles::new();
    let own = store.fetch_bundle(&td()).await.unwrap().unwrap();
    bundles.set(&td(), own.x509_authorities.iter().map(|a| a.certificate.clone()).collect());

    let (federation, orders) = Federation::new();
    let state = Arc::new(ServerState {
        federation,
        trust_domain: td(),
        store,
        view,
        ca,
        clock: shared.clone(),
        tasks: tasks.clone(),
        logs: log(),
        server_chain: Arc::new(move || chain.clone()),
        admin_ids: options.admin_ids.iter().map(|id| id.parse().unwrap()).collect(),
        attestors: options.attestors.iter().map(|a| (a.name().to_owned(), a.clone())).collect(),
        join_token: options.join_token,
        agent_id_selector: options.agent_id_selector,
        limits: Limits::new(options.limits, &shared),
        audit: options.audit,
        jwt_disabled: options.jwt_disabled,
        explain_to_agents: options.explain_to_agents,
        started: shared.monotonic(),
    });
    let layer = ApiLayer::new(state.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = listener.local_addr().unwrap();
    let tls = ServerTls::new(identity, bundles.clone(), shared).unwrap();
    let stop = tasks.shutdown();
    tasks.spawn(
        "tcp",
        OnEnd::Log,
        grpc::tcp_server()
            .layer(layer.clone())
            .add_routes(tcp_routes(&state))
            .serve_with_incoming_shutdown(tls.incoming(listener), stop.requested()),
    );
    let socket = dir.path().join("api.sock");
    tasks.spawn(
        "uds",
        OnEnd::Log,
        grpc::server_builder()
            .layer(layer)
            .add_routes(local_routes(&state))
            .serve_with_incoming_shutdown(uds::bind(&socket, 0o770).unwrap(), stop.requested()),
    );
    Server { state, orders: Some(orders), clock, tasks, tcp, socket, bundles, dir }
}

fn open_store(dir: &std::path::Path) -> SqlStore {
    SqlStore::open_sqlite(&SqliteConfig::new(dir.join("db.sqlite3").display().to_string())).unwrap()
}

impl Server {
    /// Another server's connection to the same database: what it writes, this server's view learns of later.
    pub fn another_store(&self) -> SqlStore {
        open_store(self.dir.path())
    }

    /// Clients of this trust domain get past the handshake.
    pub fn trust(&self, trust_domain: &TrustDomain, root: Certificate) {
        self.bundles.set(trust_domain, vec![root]);
    }

    /// Over the Unix socket.
    pub fn local(&self) -> Channel {
        let path = self.socket.display().to_string();
        steeple_cli::connect::connect_unix(&path, &path).unwrap()
    }

    /// Over TCP without a certificate.
    pub fn anonymous(&self) -> Channel {
        self.channel(LiveIdentity::new())
    }

    /// Over TCP with an SVID of this server.
    pub async fn workload(&self, id: &str) -> Channel {
        let key = pool_key(1);
        let params = WorkloadX509Params {
            spiffe_id: id.parse().unwrap(),
            public_key: key.public_key(),
            dns_names: Vec::new(),
            ttl: 3_600,
            subject: None,
            priority: Priority::Waiting,
        };
        let signed = self.state.ca.sign_workload_x509(params, self.clock.now()).await.unwrap();
        self.with_svid(&signed, &key)
    }

    /// Over TCP with what was signed.
    pub fn with_svid(&self, signed: &SignedX509, key: &PrivateKey) -> Channel {
        let identity = LiveIdentity::new();
        identity.set(&parse(signed), key).unwrap();
        self.channel(identity)
    }

    /// An attested agent, as a caller.
    pub async fn agent(&self, name: &str) -> (SpiffeId, Channel) {
        let id = agent_id(name);
        let key = pool_key(1);
        let signed = self.agent_svid(&id).await;
        self.put_agent(&id, &signed).await;
        let channel = self.with_svid(&signed, &key);
        (id, channel)
    }

    pub async fn agent_svid(&self, id: &SpiffeId) -> SignedX509 {
        let params = AgentX509Params { spiffe_id: id.clone(), public_key: pool_key(1).public_key() };
        self.state.ca.sign_agent_x509(params, self.clock.now()).await.unwrap()
    }

    pub async fn put_agent(&self, id: &SpiffeId, signed: &SignedX509) {
        let agent = Agent {
            id: id.clone(),
            attestation_type: "join_token".to_owned(),
            serial_number: signed.serial.clone(),
            expires_at: signed.expires_at,
            new_serial_number: String::new(),
            new_expires_at: 0,
            can_reattest: false,
            agent_version: String::new(),
            selectors: Vec::new(),
        };
        self.state.store.put_agent(agent, self.clock.now()).await.unwrap();
    }

    /// Stores an entry.
    pub async fn entry(&self, entry: Entry) -> Entry {
        let mut created = self.state.store.create_entries(vec![entry], self.clock.now()).await.unwrap();
        match created.remove(0).unwrap() {
            Created::New(entry) => entry,
            Created::Existing(entry) => panic!("{} exists", entry.id),
        }
    }

    fn channel(&self, identity: LiveIdentity) -> Channel {
        let server: SpiffeId = "spiffe://example.org/spire/server".parse().unwrap();
        let trust = ServerTrust::Bundles(self.bundles.clone());
        let tls = ClientTls::new(server, trust, identity, Arc::new(self.clock.clone())).unwrap();
        tls.channel(&Arc::new(Servers::new(&self.tcp.to_string()))).unwrap()
    }
}

pub fn td() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

pub fn agent_id(name: &str) -> SpiffeId {
    format!("spiffe://example.org/spire/agent/join_token/{name}").parse().unwrap()
}

/// A workload's entry under a parent.
pub fn entry(parent: &str, path: &str) -> Entry {
    Entry {
        id: String::new(),
        spiffe_id: format!("spiffe://example.org{path}").parse().unwrap(),
        parent_id: parent.parse().unwrap(),
        selectors: vec![Selector::new("unix", "uid:1000")],
        x509_svid_ttl: 0,
        jwt_svid_ttl: 0,
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: 0,
        dns_names: Vec::new(),
        revision_number: 0,
        store_svid: false,
        hint: String::new(),
        created_at: 0,
        additional: None,
    }
}

/// A few keys, made once: making them would be most of a test's time.
pub fn pool_key(n: usize) -> PrivateKey {
    static POOL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        (0..3).map(|_| PrivateKey::generate(KeyType::EcP256).unwrap().pkcs8_der().unwrap().to_vec()).collect()
    });
    PrivateKey::from_pkcs8_der(&pool[n]).unwrap()
}

/// A request signed with its own key.
pub fn csr(uris: &[&str], dns_names: &[&str]) -> Vec<u8> {
    csr_with(&DistinguishedName::default(), uris, dns_names)
}

pub fn csr_with(subject: &DistinguishedName, uris: &[&str], dns_names: &[&str]) -> Vec<u8> {
    let key = pool_key(2);
    let names: Vec<String> = dns_names.iter().map(|name| (*name).to_owned()).collect();
    let tbs = x509::csr_tbs(subject, &key.public_key(), uris, &names);
    let signature = key.sign(SignatureAlgorithm::EcdsaSha256, &tbs).unwrap();
    x509::assemble(&tbs, SignatureAlgorithm::EcdsaSha256, &signature)
}

/// A request whose signature is by another key.
pub fn forged_csr(uris: &[&str]) -> Vec<u8> {
    let tbs = x509::csr_tbs(&DistinguishedName::default(), &pool_key(2).public_key(), uris, &[]);
    let signature = pool_key(1).sign(SignatureAlgorithm::EcdsaSha256, &tbs).unwrap();
    x509::assemble(&tbs, SignatureAlgorithm::EcdsaSha256, &signature)
}

pub fn parse(signed: &SignedX509) -> Vec<Certificate> {
    signed.chain.iter().map(|der| Certificate::from_der(der).unwrap()).collect()
}

/// All tests of this program log to one file.
pub fn log() -> LogHandle {
    static LOG: OnceLock<LogHandle> = OnceLock::new();
    LOG.get_or_init(|| {
        let config = LogConfig {
            format: LogFormat::Json,
            level: LogLevel::Debug,
            file: Some(log_path()),
            source_location: false,
        };
        logs::init(config).unwrap()
    })
    .clone()
}

fn log_path() -> PathBuf {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    DIR.get_or_init(|| tempfile::tempdir().unwrap()).path().join("log")
}

/// The lines logged so far that hold `text`.
pub fn logged(text: &str) -> Vec<serde_json::Value> {
    let log = std::fs::read_to_string(log_path()).unwrap_or_default();
    log.lines().filter(|line| line.contains(text)).map(|line| serde_json::from_str(line).unwrap()).collect()
}
