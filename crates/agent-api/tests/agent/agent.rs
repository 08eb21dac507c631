//! An agent against a [`Server`], with its Workload API on a socket of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use steeple_agent_api::delegated::{DelegatedIdentity, DelegatedIdentityServer};
use steeple_agent_api::identity::{
    AgentIdentity, Attempt, IdentityConfig, IdentityError, TrustError, TrustSource,
};
use steeple_agent_api::sds::{SdsNames, SecretDiscovery, SecretDiscoveryServiceServer};
use steeple_agent_api::signing::Signing;
use steeple_agent_api::storage::Storage;
use steeple_agent_api::sync::{Sync, SyncConfig};
use steeple_agent_api::workload::RateLimits;
use steeple_agent_api::{AgentState, ServerLink, WorkloadApi, WorkloadAttestation, WorkloadConfig};
use steeple_agent_core::CacheConfig;
use steeple_agent_core::node::{Patience, Standing};
use steeple_plugin::{AgentNodeAttestor, Caller, KeyManager, WorkloadAttestError, WorkloadAttestor};
use steeple_plugins_base::key_manager::MemoryKeyManager;
use steeple_plugins_base::node_attestor::JoinToken;
use steeple_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use steeple_proto::spire::api::agent::delegatedidentity::v1::delegated_identity_client::DelegatedIdentityClient;
use steeple_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use steeple_runtime::clock::FakeClock;
use steeple_runtime::{grpc, uds};
use steeple_spiffe::{Certificate, KeyType, SpiffeId, TrustDomain};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use super::server::Server;

pub struct Agent {
    pub identity: Arc<AgentIdentity>,
    pub state: Arc<AgentState>,
    pub link: Arc<ServerLink>,
    pub trust: Arc<Trust>,
    pub signing: Arc<Signing>,
    pub dir: tempfile::TempDir,
    /// What the workload attestor finds: `test:<number>`, or a failure for 0.
    pub selector: Arc<AtomicU32>,
    /// How often the workload attestor was asked.
    pub attested: Arc<AtomicU32>,
}

/// How a test's agent differs from the plain one.
pub struct Options {
    pub trust_domain: &'static str,
    pub token: &'static str,
    /// `None` is `insecure_bootstrap`.
    pub trust: Option<Vec<Certificate>>,
    pub keys: Arc<dyn KeyManager>,
    pub dir: tempfile::TempDir,
    pub address: String,
    pub patience: Patience,
    /// False for SPIRE's exits.
    pub recovers: bool,
    /// Instead of `token`.
    pub attestor: Option<Arc<dyn AgentNodeAttestor>>,
    /// `svid_cache_max_bytes`
    pub max_bytes: usize,
}

impl Options {
    pub fn of(server: &Server) -> Self {
        Self {
            trust_domain: "example.org",
            token: "token",
            trust: Some(vec![server.authority.clone()]),
            keys: Arc::new(MemoryKeyManager::new()),
            dir: tempfile::tempdir().unwrap(),
            address: server.address.to_string(),
            patience: Patience::default(),
            recovers: true,
            attestor: None,
            max_bytes: usize::MAX,
        }
    }
}

/// What the bootstrap source says, and how it was asked.
pub struct Trust {
    pub authorities: Mutex<Option<Vec<Certificate>>>,
    pub asked: Mutex<Vec<Attempt>>,
}

#[tonic::async_trait]
impl TrustSource for Trust {
    async fn bootstrap(&self, attempt: &Attempt) -> Result<Option<Vec<Certificate>>, TrustError> {
        self.asked.lock().unwrap().push(attempt.clone());
        Ok(self.authorities.lock().unwrap().clone())
    }
}

/// What it finds, and how often it was asked.
struct Attestor(Arc<AtomicU32>, Arc<AtomicU32>);

#[tonic::async_trait]
impl WorkloadAttestor for Attestor {
    fn name(&self) -> &'static str {
        "test"
    }

    async fn attest(&self, _: &dyn Caller) -> Result<Vec<String>, WorkloadAttestError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        match self.0.load(Ordering::SeqCst) {
            0 => Err(WorkloadAttestError::Other("out of order".into())),
            number => Ok(vec![number.to_string()]),
        }
    }
}

impl Agent {
    pub fn new(clock: &FakeClock, options: Options) -> Self {
        let clock: Arc<dyn steeple_runtime::clock::Clock> = Arc::new(clock.clone());
        let trust_domain = TrustDomain::new(options.trust_domain).unwrap();
        let link = ServerLink::new(&options.address, &trust_domain, clock.clone()).unwrap();
        let link = Arc::new(link);
        let trust = Trust { authorities: Mutex::new(options.trust), asked: Mutex::default() };
        let trust = Arc::new(trust);
        let token = || -> Arc<dyn AgentNodeAttestor> { Arc::new(JoinToken::new(options.token.to_owned())) };
        let config = IdentityConfig {
            trust_domain: trust_domain.clone(),
            storage: Storage::open(options.dir.path()).unwrap(),
            keys: options.keys,
            attestor: options.attestor.unwrap_or_else(token),
            trust: trust.clone(),
            clock: clock.clone(),
            patience: options.patience,
            rotation: Default::default(),
            recovers: options.recovers,
        };
        let max_bytes = options.max_bytes;
        let cache =
            CacheConfig { trust_domain, max_size: 100, max_bytes, rotation: Default::default(), seed: 1 };
        let state = Arc::new(AgentState::new(cache, 100, clock));
        let signing = Signing::new(state.clone(), link.clone(), KeyType::EcP256, None);
        let identity = Arc::new(AgentIdentity::new(config, link.clone()));
        let forgetting = state.clone();
        identity.when_forfeited(Box::new(move || forgetting.forget()));
        let turned = state.clone();
        identity.when_clock_turned(Box::new(move || turned.clock_turned()));
        Self {
            identity,
            trust,
            state,
            signing: Arc::new(signing),
            link,
            dir: options.dir,
            selector: Arc::new(AtomicU32::new(1)),
            attested: Arc::default(),
        }
    }

    pub async fn establish(&self) -> Result<(), IdentityError> {
        self.identity.establish().await
    }

    /// Keeps the SVID, as the agent's own task does.
    pub fn keep(&self) {
        let identity = self.identity.clone();
        super::spawn(async move { drop(identity.run().await) });
    }

    /// Lets time pass until the agent stands so.
    pub async fn stands(&self, clock: &FakeClock, standing: Standing) {
        let mut stands = self.identity.standings();
        let waiting = async {
            while stands.borrow_and_update().standing != standing {
                let looked = tokio::time::timeout(Duration::from_millis(5), stands.changed()).await;
                if looked.is_err() {
                    clock.advance(Duration::from_secs(5));
                    self.identity.look();
                }
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        assert!(waited.is_ok(), "{:?}", *self.identity.standings().borrow());
    }

    /// Runs sync and signing; returns once the first view is in force.
    pub async fn sync(&self) {
        let config =
            SyncConfig { interval: Duration::from_millis(20), by_revision: true, version: "test".into() };
        let sync = Sync::new(self.state.clone(), self.link.clone(), self.identity.clone(), config);
        let mut synced = sync.first_sync();
        super::spawn(async move { drop(sync.run().await) });
        super::spawn(self.signing.clone().run());
        tokio::time::timeout(Duration::from_secs(20), synced.wait_for(|synced| *synced))
            .await
            .unwrap()
            .unwrap();
    }

    /// Serves the Workload API and connects to it.
    pub async fn workload(&self) -> Workload {
        self.workload_with(|_| {}).await
    }

    pub async fn workload_with(&self, change: impl FnOnce(&mut WorkloadConfig)) -> Workload {
        self.workload_at("api.sock", change).await
    }

    pub async fn workload_at(&self, socket: &str, change: impl FnOnce(&mut WorkloadConfig)) -> Workload {
        let attestation = WorkloadAttestation::new(vec![self.attestor()]);
        let config = Self::workload_config(change);
        let api = WorkloadApi::new(self.state.clone(), attestation, self.signing.clone(), config);
        let path = self.dir.path().join(socket);
        let listener = uds::bind(&path, 0o777).unwrap();
        let serving = grpc::server_builder().add_service(api).serve_with_incoming(listener);
        super::spawn(async move { drop(serving.await) });
        Workload { client: connect(path).await }
    }

    /// Serves SDS and connects to it.
    pub async fn secrets(&self, names: SdsNames) -> SecretDiscoveryServiceClient<Channel> {
        let attestation = WorkloadAttestation::new(vec![self.attestor()]);
        let config = Self::workload_config(|_| {});
        let api = WorkloadApi::new(self.state.clone(), attestation, self.signing.clone(), config);
        let sds = SecretDiscoveryServiceServer::new(SecretDiscovery::new(api, names));
        let path = self.dir.path().join(format!("sds{}.sock", fastrand::u32(..)));
        let listener = uds::bind(&path, 0o777).unwrap();
        let serving = grpc::server_builder().add_service(sds).serve_with_incoming(listener);
        super::spawn(async move { drop(serving.await) });
        SecretDiscoveryServiceClient::new(channel(path).await)
    }

    /// Serves the Delegated Identity API for these delegates and connects to it.
    pub async fn delegated(&self, delegates: &[&str]) -> DelegatedIdentityClient<Channel> {
        let attestation = WorkloadAttestation::new(vec![self.attestor()]);
        let delegates = delegates.iter().map(|id| SpiffeId::parse(id).unwrap()).collect();
        let api = DelegatedIdentity::new(self.state.clone(), attestation, self.signing.clone(), delegates);
        let path = self.dir.path().join("admin.sock");
        let listener = uds::bind(&path, 0o770).unwrap();
        let serving = grpc::server_builder()
            .add_service(DelegatedIdentityServer::new(api))
            .serve_with_incoming(listener);
        super::spawn(async move { drop(serving.await) });
        // Cilium's limit.
        DelegatedIdentityClient::new(channel(path).await).max_decoding_message_size(20 << 20)
    }

    pub fn attestor(&self) -> Arc<dyn WorkloadAttestor> {
        Arc::new(Attestor(self.selector.clone(), self.attested.clone()))
    }

    pub fn workload_config(change: impl FnOnce(&mut WorkloadConfig)) -> WorkloadConfig {
        let mut config = WorkloadConfig {
            wait_timeout: Duration::ZERO,
            allow_unauthenticated_verifiers: false,
            allowed_foreign_jwt_claims: Default::default(),
            log_selectors: vec![],
            rate_limits: RateLimits::default(),
            calls_per_user: 100,
            wit_svids: false,
            agent_pid: 0,
        };
        change(&mut config);
        config
    }
}

pub struct Workload {
    pub client: SpiffeWorkloadApiClient<Channel>,
}

pub async fn connect(path: PathBuf) -> SpiffeWorkloadApiClient<Channel> {
    SpiffeWorkloadApiClient::new(channel(path).await)
}

pub async fn channel(path: PathBuf) -> Channel {
    Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .unwrap()
}

/// A request as workloads send it.
pub fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}
