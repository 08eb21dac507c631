//! The SPIFFE Workload API (SPIFFE_Workload_API.md, statuses and messages as SPIRE's).

mod calls;
mod encode;
mod jwt;
mod limit;
mod meter;
mod reflection;
mod service;
mod stream;
mod wit;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use steeple_agent_core::cache::Content;
use steeple_agent_core::entry::{Selector, SelectorSet};
use steeple_agent_core::{Entry, Update};
use steeple_proto::workload;
use steeple_runtime::grpc;
use steeple_runtime::peer::{Peer, PeerInfo};
use tonic::{Code, Request, Status};

use crate::attest::WorkloadAttestation;
use crate::refusal::{self, Reasons};
use crate::signing::Signing;
use crate::state::{AgentState, Subscribed};
use crate::wit::Wits;
use calls::{Calls, Place};
use limit::Limiter;
pub use limit::RateLimits;
use meter::{Meter, Meters};
pub use reflection::reflection;
use service::Answers;
use stream::Kind;

/// Settings of the Workload API.
#[derive(Clone, Debug)]
pub struct WorkloadConfig {
    /// How long a caller waits for an entry that does not exist yet (`experimental.workload_wait_timeout`).
    pub wait_timeout: Duration,
    /// Bundles are served to callers without identity.
    pub allow_unauthenticated_verifiers: bool,
    /// Claims of foreign tokens that ValidateJWTSVID passes on, beside sub, exp and aud.
    pub allowed_foreign_jwt_claims: HashSet<String>,
    /// Prefixes of selectors that may appear in logs.
    pub log_selectors: Vec<String>,
    pub rate_limits: RateLimits,
    /// Calls, mostly open streams, that one user may have under way; more are refused.
    pub calls_per_user: usize,
    /// WIT-SVIDs are served (feature flag `wit-svid`).
    pub wit_svids: bool,
    /// The agent's own process, which asks for its health check: it never waits and is not counted.
    pub agent_pid: u32,
}

/// What an operator who sets nothing gets: shorter than any client's deadline (SPIRE's CLI has 5 s, some scripts 3 s).
pub const DEFAULT_WAIT: Duration = Duration::from_secs(2);
/// Time to answer before the caller's own deadline.
const DEADLINE_MARGIN: Duration = Duration::from_millis(250);
/// How long a caller with an entry waits for its first SVID if it has no deadline.
const SIGNING_WAIT: Duration = Duration::from_secs(30);
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// The service. Clones are the same.
#[derive(Clone)]
pub struct WorkloadApi(Arc<Inner>);

struct Inner {
    state: Arc<AgentState>,
    attestation: WorkloadAttestation,
    signing: Arc<Signing>,
    wits: Option<Arc<Wits>>,
    config: WorkloadConfig,
    reasons: Reasons,
    limiter: Limiter,
    calls: Arc<Calls>,
    meters: Meters,
}

/// A method of one of the services that attest their callers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Called {
    Workload(&'static str),
    Sds(&'static str),
}

impl Called {
    fn method(self) -> &'static str {
        match self {
            Self::Workload(method) | Self::Sds(method) => method,
        }
    }

    /// SPIRE's name of the service in logs.
    fn service(self) -> &'static str {
        match self {
            Self::Workload(_) => "WorkloadAPI",
            Self::Sds(_) => "SDS.v3",
        }
    }

    fn path(self) -> String {
        match self {
            Self::Workload(method) => format!("/SpiffeWorkloadAPI/{method}"),
            Self::Sds(method) => format!("/envoy.service.secret.v3.SecretDiscoveryService/{method}"),
        }
    }
}

/// One request's caller.
pub(crate) struct Caller {
    pub(crate) peer: Arc<Peer>,
    pub(crate) selectors: SelectorSet,
    /// Attestors that could not look at it.
    failed: BTreeSet<Arc<str>>,
    service: &'static str,
    pub(crate) method: &'static str,
    /// `grpc-timeout`
    timeout: Option<Duration>,
    meter: Option<Meter>,
    is_agent: bool,
    /// Nothing was waited for since the process was last looked at.
    just_seen: AtomicBool,
    /// Its place among the user's calls.
    _place: Option<Place>,
}

impl Caller {
    /// Notes how the call ended, if it did.
    pub(crate) fn ended<T>(&mut self, result: Result<T, Status>) -> Result<T, Status> {
        if let (Err(status), Some(meter)) = (&result, &mut self.meter) {
            meter.failed(status);
        }
        result
    }

    /// The call is about to wait: the process may end meanwhile, and its socket live on in another's hands.
    pub(crate) fn waits(&self) {
        self.just_seen.store(false, Ordering::Relaxed);
    }

    /// Whether what the call waited for may still be handed out.
    pub(crate) fn still_here(&self) -> Result<(), Status> {
        if self.just_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.peer.still_here().map_err(|error| {
            tracing::debug!(subsystem_name = "endpoints", service = self.service, method = self.method, pid = self.peer.pid, error = %error, "Caller gone; closing its stream");
            Status::unavailable("workload attestation failed")
        })
    }

    /// `most`, but early enough to answer within the caller's deadline.
    fn patience(&self, most: Duration) -> Duration {
        self.timeout.map_or(most, |timeout| most.min(timeout.saturating_sub(DEADLINE_MARGIN)))
    }
}

impl WorkloadApi {
    pub fn new(
        state: Arc<AgentState>,
        attestation: WorkloadAttestation,
        signing: Arc<Signing>,
        config: WorkloadConfig,
    ) -> Self {
        let limiter = Limiter::new(config.rate_limits);
        let calls = Arc::new(Calls::new(config.calls_per_user));
        let wits = Wits::new(state.clone(), signing.link());
        let wits = config.wit_svids.then(|| Arc::new(wits));
        let meters = Meters::new();
        let reasons = Reasons::default();
        Self(Arc::new(Inner { state, attestation, signing, wits, config, reasons, limiter, calls, meters }))
    }

    async fn fetch_x509_svid(self, request: Request<workload::X509svidRequest>) -> Result<Answers, Status> {
        let mut caller = self.admit(&request, Called::Workload("FetchX509SVID")).await?;
        let mut subscribed = self.0.state.subscribe(&caller.selectors);
        let entry = self.wait_for_entry(&mut subscribed, &caller, |_| true).await;
        caller.ended(entry)?;
        let svids = self.wait_for_svids(&mut subscribed, &caller).await;
        caller.ended(svids)?;
        Ok(stream::run(self, caller, subscribed, Kind::X509Svid))
    }

    async fn fetch_x509_bundles(
        self,
        request: Request<workload::X509BundlesRequest>,
    ) -> Result<Answers, Status> {
        let caller = self.admit(&request, Called::Workload("FetchX509Bundles")).await?;
        self.stream_bundles(caller, Kind::X509Bundles).await
    }

    async fn fetch_jwt_bundles(
        self,
        request: Request<workload::JwtBundlesRequest>,
    ) -> Result<Answers, Status> {
        let caller = self.admit(&request, Called::Workload("FetchJWTBundles")).await?;
        self.stream_bundles(caller, Kind::JwtBundles).await
    }

    async fn stream_bundles(self, mut caller: Caller, kind: Kind) -> Result<Answers, Status> {
        let mut subscribed = self.0.state.watch(&caller.selectors);
        if !self.0.config.allow_unauthenticated_verifiers {
            let entry = self.wait_for_entry(&mut subscribed, &caller, |_| true).await;
            caller.ended(entry)?;
        }
        Ok(stream::run(self, caller, subscribed, kind))
    }

    /// Header, caller, selectors, rate limit.
    pub(crate) async fn admit<T>(&self, request: &Request<T>, called: Called) -> Result<Caller, Status> {
        let (service, method) = (called.service(), called.method());
        let mut meter = self.0.meters.start(called);
        let mut failed = |status: Status| {
            if let Some(meter) = &mut meter {
                meter.failed(&status);
            }
            status
        };
        if let Called::Workload(_) = called {
            check_header(request).map_err(&mut failed)?;
        }
        let timeout = grpc::timeout(request.metadata().as_ref());
        let peer = request.extensions().get::<PeerInfo>().map(|info| info.peer.clone()).ok_or_else(|| {
            failed(Status::internal(
                "the caller is not known: the Workload API is served on Unix sockets only",
            ))
        })?;
        let is_agent = u32::try_from(peer.pid) == Ok(self.0.config.agent_pid);
        let place = if is_agent {
            None
        } else {
            let place = self.0.calls.enter(peer.uid, self.0.state.clock.monotonic());
            Some(place.map_err(|full| {
                if let Some(held_back) = full.to_log {
                    tracing::warn!(
                        subsystem_name = "endpoints",
                        service,
                        method,
                        pid = peer.pid,
                        uid = peer.uid,
                        limit = full.limit,
                        held_back,
                        "Call refused: the user has too many under way"
                    );
                }
                failed(Status::resource_exhausted(format!(
                    "user {} has {} calls to the Workload API under way, as many as one may; close some streams",
                    peer.uid, full.limit
                )))
            })?)
        };
        let attested = self.0.attestation.attest(&peer).await.map_err(|error| {
            let reason = error.reason();
            tracing::error!(subsystem_name = "endpoints", service, method, pid = peer.pid, error = %error, reason = reason.code(), "Workload attestation failed");
            refusal::count(service, method, reason);
            failed(refusal::status(Code::Unavailable, "workload attestation failed", reason))
        })?;
        let failing = attested.reports.iter().filter(|report| report.result.is_err());
        let caller = Caller {
            peer,
            failed: failing.map(|report| report.name.clone()).collect(),
            selectors: attested.selectors,
            service,
            method,
            timeout,
            meter: None,
            is_agent,
            just_seen: AtomicBool::new(true),
            _place: place,
        };
        if !caller.is_agent
            && !self.0.limiter.allows(method, &caller.selectors, self.0.state.clock.monotonic())
        {
            let method = called.path();
            let refusal = format!("rate limit exceeded for {method}");
            metrics::counter!("workload_api.rate_limit_exceeded", "method" => method).increment(1);
            return Err(failed(Status::unavailable(refusal)));
        }
        if let Some(meter) = meter.as_mut().filter(|_| caller.is_agent) {
            meter.discard();
        }
        Ok(Caller { meter, ..caller })
    }

    /// Returns once an entry that `fits` matches; after the configured wait, SPIRE's refusal.
    async fn wait_for_entry(
        &self,
        subscribed: &mut Subscribed,
        caller: &Caller,
        fits: impl Fn(&Entry) -> bool,
    ) -> Result<(), Status> {
        let updates = &mut subscribed.subscription.updates;
        let matches = |update: &Update| update.matched.iter().any(|entry| fits(entry));
        let patience =
            if caller.is_agent { Duration::ZERO } else { caller.patience(self.0.config.wait_timeout) };
        if matches(&updates.borrow()) {
            return Ok(());
        }
        if !patience.is_zero() {
            caller.waits();
            tracing::debug!(
                subsystem_name = "endpoints",
                service = caller.service,
                method = caller.method,
                pid = caller.peer.pid,
                "No entry matches yet; waiting for one"
            );
            let found = tokio::time::timeout(patience, updates.wait_for(matches)).await;
            if matches!(found, Ok(Ok(_))) {
                return Ok(());
            }
        }
        Err(self.no_identity(caller))
    }

    /// Returns once every SVID that can be had is there.
    async fn wait_for_svids(&self, subscribed: &mut Subscribed, caller: &Caller) -> Result<(), Status> {
        let updates = &mut subscribed.subscription.updates;
        let ready = |update: &Update| {
            update.matched.is_empty() || !(update.pending || update.content.identities.is_empty())
        };
        if ready(&updates.borrow()) {
            return Ok(());
        }
        let patience = caller.patience(SIGNING_WAIT);
        caller.waits();
        if matches!(tokio::time::timeout(patience, updates.wait_for(ready)).await, Ok(Ok(_))) {
            return Ok(());
        }
        let update = updates.borrow();
        if update.content.identities.is_empty() {
            let error = update.error.as_deref().unwrap_or("the server has not signed it yet");
            tracing::warn!(
                subsystem_name = "endpoints",
                service = caller.service,
                method = caller.method,
                pid = caller.peer.pid,
                error,
                "Waiting for SVID to get cached"
            );
            return Err(Status::unavailable(format!("X.509-SVID is not available yet: {error}")));
        }
        Ok(())
    }

    pub(crate) fn monotonic(&self) -> Duration {
        self.0.state.clock.monotonic()
    }

    pub(crate) fn subscribe(&self, caller: &Caller) -> Subscribed {
        self.0.state.subscribe(&caller.selectors)
    }

    /// What the caller receives, once `complete` or when waiting for it has lasted long enough: for an entry as long as
    /// any caller waits, for SVIDs that are being signed as long as that takes.
    pub(crate) async fn content(
        &self,
        subscribed: &mut Subscribed,
        caller: &Caller,
        complete: impl Fn(&Content) -> bool,
    ) -> Arc<Content> {
        let updates = &mut subscribed.subscription.updates;
        let matched = |update: &Update| complete(&update.content) || !update.matched.is_empty();
        let entry = updates.wait_for(matched);
        let _ = tokio::time::timeout(caller.patience(self.0.config.wait_timeout), entry).await;
        let ready = |update: &Update| complete(&update.content) || !update.pending;
        let signed = updates.wait_for(ready);
        let _ = tokio::time::timeout(caller.patience(SIGNING_WAIT), signed).await;
        updates.borrow_and_update().content.clone()
    }

    fn no_identity(&self, caller: &Caller) -> Status {
        let Inner { state, attestation, reasons, .. } = &*self.0;
        let reason = reasons.find(state, attestation, &caller.selectors, &caller.failed);
        if !caller.is_agent {
            let selectors = self.loggable(&caller.selectors);
            let selectors = (!selectors.is_empty()).then_some(selectors);
            tracing::error!(
                subsystem_name = "endpoints",
                service = caller.service,
                method = caller.method,
                pid = caller.peer.pid,
                registered = false,
                reason = reason.code(),
                selectors,
                "No identity issued"
            );
        }
        refusal::no_identity(caller.service, caller.method, reason)
    }

    /// Selectors that the operator allows in logs.
    fn loggable(&self, selectors: &SelectorSet) -> String {
        let allowed = |selector: &&Selector| {
            self.0.config.log_selectors.iter().any(|prefix| {
                selector
                    .as_str()
                    .strip_prefix(prefix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
            })
        };
        let shown: Vec<&str> = selectors.iter().filter(allowed).map(Selector::as_str).collect();
        shown.join(",")
    }
}

/// Workload Endpoint §3: exactly once, exactly `true`.
pub(crate) fn check_header<T>(request: &Request<T>) -> Result<(), Status> {
    let mut values = request.metadata().get_all(SECURITY_HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.as_bytes() == b"true" => Ok(()),
        _ => Err(Status::invalid_argument("security header missing from request")),
    }
}
