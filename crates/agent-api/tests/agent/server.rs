//! A server that does what a test tells it, over real mutual TLS.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt as _};
use prost::Message as _;
use steeple_proto::spire::api::server::agent::v1 as agent;
use steeple_proto::spire::api::server::bundle::v1 as bundle;
use steeple_proto::spire::api::server::entry::v1 as entry;
use steeple_proto::spire::api::server::svid::v1 as svid;
use steeple_proto::spire::api::types;
use steeple_proto::steeple::agent::v1 as push;
use steeple_proto::steeple::server::v1::explain_server::{Explain, ExplainServer};
use steeple_proto::steeple::server::v1::{
    ForAgentRequest, ForAgentResponse, RegistrationsRequest, RegistrationsResponse,
};
use steeple_runtime::clock::{Clock, FakeClock};
use steeple_runtime::grpc;
use steeple_runtime::tls::{LiveBundles, LiveIdentity, ServerTls, TlsPeer};
use steeple_spiffe::bundle::JwtAuthority;
use steeple_spiffe::x509::{self, CertificateRequest, DistinguishedName, SerialNumber};
use steeple_spiffe::{
    Bundle, Certificate, KeyType, PrivateKey, PublicKey, SignatureAlgorithm, SpiffeId, TrustDomain, jwt,
};
use tokio::sync::broadcast;
use tonic::{Code, Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// What the test sees and turns.
pub struct Server {
    pub address: SocketAddr,
    pub trust_domain: TrustDomain,
    /// The first one, see [`Server::set_up_anew`].
    pub authority: Certificate,
    ca: Mutex<Arc<Authority>>,
    first_ca: Arc<Authority>,
    identity: LiveIdentity,
    own_key: PrivateKey,
    jwt_key: PrivateKey,
    clock: FakeClock,
    bundles: LiveBundles,
    pub tokens: Mutex<HashSet<String>>,
    pub reattestable: AtomicBool,
    pub attestations: AtomicUsize,
    pub renewals: AtomicUsize,
    pub jwts: AtomicUsize,
    /// Asked for a JWT-SVID, it never answers.
    pub hangs: AtomicBool,
    pub wits: AtomicUsize,
    /// The feature flag `wit-svid` is off.
    pub without_wit: AtomicBool,
    pub watches: AtomicUsize,
    /// What it says to an agent that asks why.
    pub explains: Mutex<Option<ForAgentResponse>>,
    /// Whether agents are banned, and how often one was told so when it attested.
    pub banned: AtomicBool,
    pub refused: AtomicUsize,
    /// Answers no call of an agent.
    pub away: AtomicBool,
    /// Why agents are refused.
    pub denial: Mutex<Option<types::permission_denied_details::Reason>>,
    /// Whether `steeple.agent.v1.Sync` is known.
    pub pushes: AtomicBool,
    /// What a watcher receives first, then as it comes.
    pub view: Mutex<push::WatchResponse>,
    pub changes: broadcast::Sender<Result<push::WatchResponse, Status>>,
    /// SyncAuthorizedEntries pages by revision.
    pub pages: AtomicBool,
    pub synced_ids: Mutex<Vec<Vec<String>>>,
    pub signing: AtomicBool,
    /// What batches of signatures were said to be for.
    pub priorities: Mutex<HashSet<String>>,
    pub agent_ttl: i64,
}

/// What it signs with.
struct Authority {
    certificate: Certificate,
    key: PrivateKey,
}

impl Authority {
    fn new(trust_domain: &TrustDomain, clock: &FakeClock) -> Self {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let template = x509::CaTemplate {
            trust_domain: trust_domain.clone(),
            public_key: key.public_key(),
            subject: DistinguishedName::default_ca(),
            not_before: clock.now() - 10,
            not_after: clock.now() + 30 * 86_400,
            serial: SerialNumber::random().unwrap(),
        };
        let algorithm = key.key_type().x509_signature_algorithm();
        let tbs = x509::ca_tbs_self_signed(&template, algorithm).unwrap();
        let der = x509::assemble(&tbs, algorithm, &key.sign(algorithm, &tbs).unwrap());
        Self { certificate: Certificate::from_der(&der).unwrap(), key }
    }
}

pub const START: i64 = 1_800_000_000;

impl Server {
    pub async fn start(trust_domain: &str, clock: &FakeClock, agent_ttl: i64) -> Arc<Self> {
        let trust_domain = TrustDomain::new(trust_domain).unwrap();
        let ca = Arc::new(Authority::new(&trust_domain, clock));
        Self::start_at("127.0.0.1:0", &trust_domain, ca, clock, agent_ttl).await
    }

    /// Another server of the same trust domain: same port, next address.
    pub async fn start_beside(&self, clock: &FakeClock) -> Arc<Self> {
        let at = format!("127.0.0.2:{}", self.address.port());
        Self::start_at(&at, &self.trust_domain, self.first_ca.clone(), clock, self.agent_ttl).await
    }

    async fn start_at(
        at: &str,
        trust_domain: &TrustDomain,
        ca: Arc<Authority>,
        clock: &FakeClock,
        agent_ttl: i64,
    ) -> Arc<Self> {
        let trust_domain = trust_domain.clone();
        let listener = tokio::net::TcpListener::bind(at).await.unwrap();
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            authority: ca.certificate.clone(),
            ca: Mutex::new(ca.clone()),
            first_ca: ca,
            identity: LiveIdentity::new(),
            own_key: PrivateKey::generate(KeyType::EcP256).unwrap(),
            trust_domain,
            jwt_key: PrivateKey::generate(KeyType::EcP256).unwrap(),
            clock: clock.clone(),
            bundles: LiveBundles::new(),
            tokens: Mutex::default(),
            reattestable: AtomicBool::new(false),
            attestations: AtomicUsize::new(0),
            renewals: AtomicUsize::new(0),
            jwts: AtomicUsize::new(0),
            hangs: AtomicBool::new(false),
            wits: AtomicUsize::new(0),
            without_wit: AtomicBool::new(false),
            watches: AtomicUsize::new(0),
            explains: Mutex::default(),
            banned: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            away: AtomicBool::new(false),
            denial: Mutex::new(None),
            pushes: AtomicBool::new(true),
            view: Mutex::default(),
            changes: broadcast::channel(64).0,
            pages: AtomicBool::new(false),
            synced_ids: Mutex::default(),
            signing: AtomicBool::new(true),
            priorities: Mutex::default(),
            agent_ttl,
        });
        *server.view.lock().unwrap() =
            push::WatchResponse { bundles: vec![server.bundle()], ..view(1, true, &[]) };
        server.certify(3600);
        let tls =
            ServerTls::new(server.identity.clone(), server.bundles.clone(), Arc::new(clock.clone())).unwrap();
        let serving = grpc::tcp_server()
            .add_service(agent::agent_server::AgentServer::from_arc(server.clone()))
            .add_service(bundle::bundle_server::BundleServer::from_arc(server.clone()))
            .add_service(entry::entry_server::EntryServer::from_arc(server.clone()))
            .add_service(svid::svid_server::SvidServer::from_arc(server.clone()))
            .add_service(ExplainServer::from_arc(server.clone()))
            .add_service(push::sync_server::SyncServer::from_arc(server.clone()))
            .serve_with_incoming(tls.incoming(listener));
        super::spawn(async move { drop(serving.await) });
        server
    }

    /// Shows a certificate of the authority of the moment, and trusts it alone.
    fn certify(&self, ttl: i64) {
        self.bundles.set(&self.trust_domain, vec![self.authority()]);
        let chain = self.leaf("/spire/server", &self.own_key.public_key(), ttl);
        self.identity.set(&[Certificate::from_der(&chain).unwrap()], &self.own_key).unwrap();
    }

    /// For tests whose clocks run fast.
    pub fn renew_certificate(&self) {
        self.certify(20 * 86_400);
    }

    pub fn authority(&self) -> Certificate {
        self.ca().certificate.clone()
    }

    fn ca(&self) -> Arc<Authority> {
        self.ca.lock().unwrap().clone()
    }

    /// All of its data is lost: another authority, another log, no agent known. The entries are made again.
    pub fn set_up_anew(&self) {
        self.change_ca(Arc::new(Authority::new(&self.trust_domain, &self.clock)), "anew");
    }

    /// The data is found again.
    pub fn restore(&self) {
        self.change_ca(self.first_ca.clone(), "log");
    }

    fn change_ca(&self, ca: Arc<Authority>, log: &str) {
        *self.ca.lock().unwrap() = ca;
        self.renew_certificate();
        {
            let mut view = self.view.lock().unwrap();
            view.log_id = log.into();
            view.bundles = vec![self.bundle()];
        }
        self.break_streams();
    }

    pub fn ban(&self, banned: bool) {
        self.banned.store(banned, Ordering::SeqCst);
        self.break_streams();
    }

    pub fn be_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
        self.break_streams();
    }

    /// Ends the streams of all watchers.
    pub fn break_streams(&self) {
        let _ = self.changes.send(Err(Status::unavailable("rebalance")));
    }

    pub fn token(&self, token: &str) {
        self.tokens.lock().unwrap().insert(token.to_owned());
    }

    /// Pushes a change to watchers and keeps it for those to come.
    pub fn push(&self, change: push::WatchResponse) {
        {
            let mut view = self.view.lock().unwrap();
            view.revision = change.revision;
            for id in &change.removed_entry_ids {
                view.entries.retain(|entry| entry.id != *id);
            }
            view.entries.extend(change.entries.iter().cloned());
        }
        let _ = self.changes.send(Ok(change));
    }

    fn leaf(&self, path: &str, key: &PublicKey, ttl: i64) -> Vec<u8> {
        let template = x509::LeafTemplate {
            spiffe_id: SpiffeId::from_parts(&self.trust_domain, path).unwrap(),
            public_key: key.clone(),
            not_before: self.clock.now() - 10,
            not_after: self.clock.now() + ttl,
            dns_names: vec![],
            subject: None,
            serial: SerialNumber::random().unwrap(),
        };
        let ca = self.ca();
        let algorithm = ca.key.key_type().x509_signature_algorithm();
        let tbs =
            x509::leaf_tbs(&template, &x509::Issuer::from_certificate(&ca.certificate, algorithm)).unwrap();
        x509::assemble(&tbs, algorithm, &ca.key.sign(algorithm, &tbs).unwrap())
    }

    fn agent_svid(&self, csr: &[u8]) -> types::X509svid {
        let csr = CertificateRequest::from_der(csr).unwrap();
        csr.verify_signature().unwrap();
        let leaf = self.leaf("/spire/agent/join_token/x", &csr.public_key(), self.agent_ttl);
        types::X509svid { cert_chain: vec![leaf], ..types::X509svid::default() }
    }

    /// The key that signs WIT-SVIDs.
    pub fn wit_authority(&self, tainted: bool) -> types::WitKey {
        let public_key = self.jwt_key.public_key().spki_der().to_vec();
        types::WitKey { public_key, key_id: "wit-kid".into(), tainted, ..Default::default() }
    }

    /// What validates WIT-SVIDs.
    pub fn spiffe_bundle(&self) -> Bundle {
        let mut bundle = Bundle::new(self.trust_domain.clone());
        let public_key = self.jwt_key.public_key();
        let authority = JwtAuthority { key_id: "wit-kid".into(), public_key, expires_at: 0, tainted: false };
        bundle.wit_authorities.push(authority);
        bundle
    }

    fn bundle(&self) -> types::Bundle {
        types::Bundle {
            trust_domain: self.trust_domain.name().to_owned(),
            x509_authorities: vec![types::X509Certificate {
                asn1: self.authority().der().to_vec(),
                tainted: false,
            }],
            jwt_authorities: vec![types::JwtKey {
                public_key: self.jwt_key.public_key().spki_der().to_vec(),
                key_id: "kid".into(),
                expires_at: 0,
                tainted: false,
            }],
            ..types::Bundle::default()
        }
    }

    /// Every call of an agent passes here.
    fn authorize<T>(&self, request: &Request<T>) -> Result<(), Status> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Status::unavailable("nobody here"));
        }
        if self.banned.load(Ordering::SeqCst) {
            return Err(denied(types::permission_denied_details::Reason::AgentBanned));
        }
        let known = request.extensions().get::<TlsPeer>().is_some_and(|peer| peer.spiffe_id.is_some());
        let reason = *self.denial.lock().unwrap();
        match reason {
            Some(reason) => Err(denied(reason)),
            None if known => Ok(()),
            None => Err(Status::permission_denied("authorization denied for method")),
        }
    }
}

pub fn view(revision: u64, snapshot: bool, entries: &[types::Entry]) -> push::WatchResponse {
    push::WatchResponse {
        revision,
        log_id: "log".into(),
        snapshot,
        entries: entries.to_vec(),
        ..push::WatchResponse::default()
    }
}

pub fn web(id: &str, path: &str, selector: &str) -> types::Entry {
    types::Entry {
        id: id.into(),
        spiffe_id: Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() }),
        selectors: vec![types::Selector { r#type: "test".into(), value: selector.into() }],
        ..types::Entry::default()
    }
}

fn denied(reason: types::permission_denied_details::Reason) -> Status {
    #[derive(Clone, PartialEq, prost::Message)]
    struct RpcStatus {
        #[prost(message, repeated, tag = "3")]
        details: Vec<prost_types::Any>,
    }
    let details = types::PermissionDeniedDetails { reason: reason.into() };
    let any = prost_types::Any {
        type_url: "type.googleapis.com/spire.api.types.PermissionDeniedDetails".into(),
        value: details.encode_to_vec(),
    };
    let details = RpcStatus { details: vec![any] }.encode_to_vec();
    Status::with_details(Code::PermissionDenied, "agent refused", details.into())
}

#[tonic::async_trait]
impl Explain for Server {
    async fn registrations(&self, _: Request<RegistrationsRequest>) -> Answer<RegistrationsResponse> {
        no()
    }

    async fn for_agent(&self, request: Request<ForAgentRequest>) -> Answer<ForAgentResponse> {
        self.authorize(&request)?;
        self.explains.lock().unwrap().clone().map_or_else(no, |answer| Ok(Response::new(answer)))
    }
}

fn no<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl agent::agent_server::Agent for Server {
    type AttestAgentStream = Answers<agent::AttestAgentResponse>;

    async fn attest_agent(
        &self,
        request: Request<Streaming<agent::AttestAgentRequest>>,
    ) -> Answer<Self::AttestAgentStream> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Status::unavailable("nobody here"));
        }
        if self.banned.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(denied(types::permission_denied_details::Reason::AgentBanned));
        }
        let first = request.into_inner().message().await?.unwrap();
        let Some(agent::attest_agent_request::Step::Params(params)) = first.step else { return no() };
        let token = String::from_utf8(params.data.unwrap().payload).unwrap();
        if !self.tokens.lock().unwrap().remove(&token) && !self.reattestable.load(Ordering::SeqCst) {
            return Err(Status::invalid_argument(
                "failed to attest: join token does not exist or has already been used",
            ));
        }
        self.attestations.fetch_add(1, Ordering::SeqCst);
        *self.denial.lock().unwrap() = None;
        let result = agent::attest_agent_response::Result {
            svid: Some(self.agent_svid(&params.params.unwrap().csr)),
            reattestable: self.reattestable.load(Ordering::SeqCst),
        };
        let step = Some(agent::attest_agent_response::Step::Result(result));
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(agent::AttestAgentResponse { step })]))))
    }

    async fn renew_agent(
        &self,
        request: Request<agent::RenewAgentRequest>,
    ) -> Answer<agent::RenewAgentResponse> {
        self.authorize(&request)?;
        self.renewals.fetch_add(1, Ordering::SeqCst);
        let svid = self.agent_svid(&request.into_inner().params.unwrap().csr);
        Ok(Response::new(agent::RenewAgentResponse { svid: Some(svid) }))
    }

    async fn post_status(
        &self,
        request: Request<agent::PostStatusRequest>,
    ) -> Answer<agent::PostStatusResponse> {
        self.authorize(&request)?;
        Ok(Response::new(agent::PostStatusResponse {}))
    }

    async fn count_agents(
        &self,
        _: Request<agent::CountAgentsRequest>,
    ) -> Answer<agent::CountAgentsResponse> {
        no()
    }

    async fn list_agents(&self, _: Request<agent::ListAgentsRequest>) -> Answer<agent::ListAgentsResponse> {
        no()
    }

    async fn get_agent(&self, _: Request<agent::GetAgentRequest>) -> Answer<types::Agent> {
        no()
    }

    async fn delete_agent(&self, _: Request<agent::DeleteAgentRequest>) -> Answer<()> {
        no()
    }

    async fn ban_agent(&self, _: Request<agent::BanAgentRequest>) -> Answer<()> {
        no()
    }

    async fn create_join_token(&self, _: Request<agent::CreateJoinTokenRequest>) -> Answer<types::JoinToken> {
        no()
    }
}

#[tonic::async_trait]
impl push::sync_server::Sync for Server {
    type WatchStream = Answers<push::WatchResponse>;

    async fn watch(&self, request: Request<push::WatchRequest>) -> Answer<Self::WatchStream> {
        if !self.pushes.load(Ordering::SeqCst) {
            return Err(Status::unimplemented("unknown service steeple.agent.v1.Sync"));
        }
        self.authorize(&request)?;
        self.watches.fetch_add(1, Ordering::SeqCst);
        let changes = tokio_stream::wrappers::BroadcastStream::new(self.changes.subscribe());
        let first = self.view.lock().unwrap().clone();
        let later = changes.map(|change| change.unwrap_or_else(|_| Err(Status::unavailable("too slow"))));
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(first)]).chain(later))))
    }
}

#[tonic::async_trait]
impl bundle::bundle_server::Bundle for Server {
    async fn get_bundle(&self, _: Request<bundle::GetBundleRequest>) -> Answer<types::Bundle> {
        Ok(Response::new(self.bundle()))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<bundle::GetFederatedBundleRequest>,
    ) -> Answer<types::Bundle> {
        self.authorize(&request)?;
        let trust_domain = request.into_inner().trust_domain;
        match trust_domain.as_str() {
            "missing.org" => Err(Status::not_found("bundle not found")),
            _ => Ok(Response::new(types::Bundle { trust_domain, ..self.bundle() })),
        }
    }

    async fn count_bundles(
        &self,
        _: Request<bundle::CountBundlesRequest>,
    ) -> Answer<bundle::CountBundlesResponse> {
        no()
    }

    async fn append_bundle(&self, _: Request<bundle::AppendBundleRequest>) -> Answer<types::Bundle> {
        no()
    }

    async fn publish_jwt_authority(
        &self,
        _: Request<bundle::PublishJwtAuthorityRequest>,
    ) -> Answer<bundle::PublishJwtAuthorityResponse> {
        no()
    }

    async fn publish_wit_authority(
        &self,
        _: Request<bundle::PublishWitAuthorityRequest>,
    ) -> Answer<bundle::PublishWitAuthorityResponse> {
        no()
    }

    async fn list_federated_bundles(
        &self,
        _: Request<bundle::ListFederatedBundlesRequest>,
    ) -> Answer<bundle::ListFederatedBundlesResponse> {
        no()
    }

    async fn batch_create_federated_bundle(
        &self,
        _: Request<bundle::BatchCreateFederatedBundleRequest>,
    ) -> Answer<bundle::BatchCreateFederatedBundleResponse> {
        no()
    }

    async fn batch_update_federated_bundle(
        &self,
        _: Request<bundle::BatchUpdateFederatedBundleRequest>,
    ) -> Answer<bundle::BatchUpdateFederatedBundleResponse> {
        no()
    }

    async fn batch_set_federated_bundle(
        &self,
        _: Request<bundle::BatchSetFederatedBundleRequest>,
    ) -> Answer<bundle::BatchSetFederatedBundleResponse> {
        no()
    }

    async fn batch_delete_federated_bundle(
        &self,
        _: Request<bundle::BatchDeleteFederatedBundleRequest>,
    ) -> Answer<bundle::BatchDeleteFederatedBundleResponse> {
        no()
    }
}

#[tonic::async_trait]
impl entry::entry_server::Entry for Server {
    type SyncAuthorizedEntriesStream = Answers<entry::SyncAuthorizedEntriesResponse>;

    async fn get_authorized_entries(
        &self,
        request: Request<entry::GetAuthorizedEntriesRequest>,
    ) -> Answer<entry::GetAuthorizedEntriesResponse> {
        self.authorize(&request)?;
        let entries = self.view.lock().unwrap().entries.clone();
        Ok(Response::new(entry::GetAuthorizedEntriesResponse { entries }))
    }

    /// With `pages`, two entries a page, as SPIRE with more than 500.
    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<entry::SyncAuthorizedEntriesRequest>>,
    ) -> Answer<Self::SyncAuthorizedEntriesStream> {
        self.authorize(&request)?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap();
        assert!(first.ids.is_empty());
        let entries = self.view.lock().unwrap().entries.clone();
        let mut answers = Vec::new();
        if !self.pages.load(Ordering::SeqCst) {
            answers.push(entry::SyncAuthorizedEntriesResponse { entries, ..Default::default() });
            return Ok(Response::new(Box::pin(futures::stream::iter(answers.into_iter().map(Ok)))));
        }
        let pages: Vec<&[types::Entry]> = entries.chunks(2).collect();
        for (at, page) in pages.iter().enumerate() {
            let revision = |entry: &types::Entry| entry::EntryRevision {
                id: entry.id.clone(),
                revision_number: entry.revision_number,
                created_at: entry.created_at,
            };
            answers.push(entry::SyncAuthorizedEntriesResponse {
                entry_revisions: page.iter().map(revision).collect(),
                more: at + 1 < pages.len(),
                ..Default::default()
            });
        }
        let revisions = futures::stream::iter(answers.into_iter().map(Ok));
        let (sender, wanted) = tokio::sync::mpsc::unbounded_channel();
        self.synced_ids.lock().unwrap().clear();
        let all = entries.clone();
        super::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let found: Vec<_> =
                    all.iter().filter(|entry| request.ids.contains(&entry.id)).cloned().collect();
                // One entry an answer, so that `more` is followed.
                let last = found.len().saturating_sub(1);
                for (at, entry) in found.into_iter().enumerate() {
                    let answer = entry::SyncAuthorizedEntriesResponse {
                        entries: vec![entry],
                        more: at < last,
                        ..Default::default()
                    };
                    let _ = sender.send(Ok(answer));
                }
            }
        });
        let wanted = tokio_stream::wrappers::UnboundedReceiverStream::new(wanted);
        Ok(Response::new(Box::pin(revisions.chain(wanted))))
    }

    async fn count_entries(
        &self,
        _: Request<entry::CountEntriesRequest>,
    ) -> Answer<entry::CountEntriesResponse> {
        no()
    }

    async fn list_entries(
        &self,
        _: Request<entry::ListEntriesRequest>,
    ) -> Answer<entry::ListEntriesResponse> {
        no()
    }

    async fn get_entry(&self, _: Request<entry::GetEntryRequest>) -> Answer<types::Entry> {
        no()
    }

    async fn batch_create_entry(
        &self,
        _: Request<entry::BatchCreateEntryRequest>,
    ) -> Answer<entry::BatchCreateEntryResponse> {
        no()
    }

    async fn batch_update_entry(
        &self,
        _: Request<entry::BatchUpdateEntryRequest>,
    ) -> Answer<entry::BatchUpdateEntryResponse> {
        no()
    }

    async fn batch_delete_entry(
        &self,
        _: Request<entry::BatchDeleteEntryRequest>,
    ) -> Answer<entry::BatchDeleteEntryResponse> {
        no()
    }
}

#[tonic::async_trait]
impl svid::svid_server::Svid for Server {
    async fn batch_new_x509svid(
        &self,
        request: Request<svid::BatchNewX509svidRequest>,
    ) -> Answer<svid::BatchNewX509svidResponse> {
        self.authorize(&request)?;
        let priority = request.metadata().get("steeple-priority").unwrap().to_str().unwrap();
        self.priorities.lock().unwrap().insert(priority.to_owned());
        if !self.signing.load(Ordering::SeqCst) {
            return Err(Status::unavailable("the CA is not ready"));
        }
        let entries = self.view.lock().unwrap().entries.clone();
        let result = |params: svid::NewX509svidParams| {
            let Some(entry) = entries.iter().find(|entry| entry.id == params.entry_id) else {
                let status = types::Status { code: 5, message: "entry not found or not authorized".into() };
                return svid::batch_new_x509svid_response::Result { status: Some(status), svid: None };
            };
            let csr = CertificateRequest::from_der(&params.csr).unwrap();
            csr.verify_signature().unwrap();
            let path = &entry.spiffe_id.as_ref().unwrap().path;
            let leaf = self.leaf(path, &csr.public_key(), 3600);
            svid::batch_new_x509svid_response::Result {
                status: Some(types::Status::default()),
                svid: Some(types::X509svid { cert_chain: vec![leaf], ..Default::default() }),
            }
        };
        let results = request.into_inner().params.into_iter().map(result).collect();
        Ok(Response::new(svid::BatchNewX509svidResponse { results }))
    }

    async fn new_jwtsvid(
        &self,
        request: Request<svid::NewJwtsvidRequest>,
    ) -> Answer<svid::NewJwtsvidResponse> {
        self.authorize(&request)?;
        if !self.signing.load(Ordering::SeqCst) {
            return Err(Status::unknown("the CA is not ready"));
        }
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.jwts.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        let entries = self.view.lock().unwrap().entries.clone();
        let entry = entries.iter().find(|entry| entry.id == request.entry_id).unwrap();
        let path = &entry.spiffe_id.as_ref().unwrap().path;
        let id = SpiffeId::from_parts(&self.trust_domain, path).unwrap();
        let (issued_at, expires_at) = (self.clock.now(), self.clock.now() + 300);
        let claims = jwt::Claims::new(&id, &request.audience, issued_at, expires_at).unwrap();
        let algorithm = self.jwt_key.key_type().jws_algorithm();
        let input = jwt::signing_input(algorithm, "kid", &claims);
        let signature = self.jwt_key.sign(algorithm, input.as_bytes()).unwrap();
        let token = jwt::assemble(&input, algorithm, &signature).unwrap();
        let svid =
            types::Jwtsvid { token, id: entry.spiffe_id.clone(), expires_at, issued_at, hint: String::new() };
        Ok(Response::new(svid::NewJwtsvidResponse { svid: Some(svid) }))
    }

    async fn mint_x509svid(
        &self,
        _: Request<svid::MintX509svidRequest>,
    ) -> Answer<svid::MintX509svidResponse> {
        no()
    }

    async fn mint_jwtsvid(&self, _: Request<svid::MintJwtsvidRequest>) -> Answer<svid::MintJwtsvidResponse> {
        no()
    }

    async fn mint_witsvid(&self, _: Request<svid::MintWitsvidRequest>) -> Answer<svid::MintWitsvidResponse> {
        no()
    }

    async fn batch_new_witsvid(
        &self,
        request: Request<svid::BatchNewWitsvidRequest>,
    ) -> Answer<svid::BatchNewWitsvidResponse> {
        self.authorize(&request)?;
        if !self.signing.load(Ordering::SeqCst) {
            return Err(Status::unavailable("the CA is not ready"));
        }
        if self.without_wit.load(Ordering::SeqCst) {
            return Err(Status::unimplemented("WIT functionality is disabled"));
        }
        let entries = self.view.lock().unwrap().entries.clone();
        let sign = |param: svid::NewWitsvidParams| {
            let Some(entry) = entries.iter().find(|entry| entry.id == param.entry_id) else {
                let status = types::Status { code: 5, message: "entry not found or not authorized".into() };
                return svid::batch_new_witsvid_response::Result { status: Some(status), svid: None };
            };
            self.wits.fetch_add(1, Ordering::SeqCst);
            let id = SpiffeId::from_parts(&self.trust_domain, &entry.spiffe_id.as_ref().unwrap().path);
            let (issued_at, expires_at) = (self.clock.now(), self.clock.now() + 300);
            let key = steeple_spiffe::PublicKey::from_spki_der(&param.public_key).unwrap();
            let algorithm = SignatureAlgorithm::from_jws_name(&param.signing_algorithm).unwrap();
            let claims =
                jwt::WitClaims::new(&id.unwrap(), &key, algorithm, issued_at, expires_at, "").unwrap();
            let signer = self.jwt_key.key_type().jws_algorithm();
            let input = jwt::wit_signing_input(signer, "wit-kid", &claims);
            let signature = self.jwt_key.sign(signer, input.as_bytes()).unwrap();
            let token = jwt::assemble(&input, signer, &signature).unwrap();
            let id = entry.spiffe_id.clone();
            let svid = types::Witsvid { token, id, expires_at, issued_at, hint: String::new() };
            // As SPIRE's server answers: no status where it went well.
            svid::batch_new_witsvid_response::Result { status: None, svid: Some(svid) }
        };
        let results = request.into_inner().params.into_iter().map(sign).collect();
        Ok(Response::new(svid::BatchNewWitsvidResponse { results }))
    }

    async fn new_downstream_x509ca(
        &self,
        _: Request<svid::NewDownstreamX509caRequest>,
    ) -> Answer<svid::NewDownstreamX509caResponse> {
        no()
    }
}
