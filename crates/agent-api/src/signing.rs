//! X.509-SVIDs and JWT-SVIDs from the server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Shared, WeakShared};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use steeple_agent_core::batch::BatchSize;
use steeple_agent_core::cache::{Priority, Svid};
use steeple_agent_core::jwt_cache::{Found, JwtKey, Token};
use steeple_agent_core::rotation::RotationPolicy;
use steeple_agent_core::{Entry, SignJob, millis};
use steeple_proto::spire::api::server::svid::v1::{
    BatchNewX509svidRequest, NewJwtsvidRequest, NewX509svidParams, batch_new_x509svid_response,
};
use steeple_runtime::grpc::PRIORITY_KEY;
use steeple_runtime::metrics::CallCounter;
use steeple_spiffe::x509::{self, DistinguishedName};
use steeple_spiffe::{Certificate, KeyType, PrivateKey, jwt};
use tonic::Code;
use tonic::metadata::MetadataValue;
use zeroize::Zeroizing;

use crate::failure::ServerError;
use crate::identity::timed;
use crate::link::{RPC_TIMEOUT, ServerLink};
use crate::state::AgentState;

/// Asks the server to sign.
pub struct Signing {
    state: Arc<AgentState>,
    link: Arc<ServerLink>,
    key_type: KeyType,
    /// How long a cached JWT-SVID past its half-life waits for its successor (`jwt_svid_cache_hit_timeout`).
    cache_hit_timeout: Duration,
    flights: Mutex<HashMap<JwtKey, WeakShared<BoxFuture<'static, Fetched>>>>,
}

type Fetched = Result<Arc<Token>, Arc<ServerError>>;
type Flight = Shared<BoxFuture<'static, Fetched>>;

/// Batches under way: one that nobody waits for, and up to three that somebody does.
const MAX_CALLS: usize = 4;
/// SPIRE's pause between tries for a JWT-SVID.
const JWT_RETRY: Duration = Duration::from_secs(1);
/// More keys than this are made off the runtime's threads.
const INLINE_KEYS: usize = 8;

impl Signing {
    pub fn new(
        state: Arc<AgentState>,
        link: Arc<ServerLink>,
        key_type: KeyType,
        cache_hit_timeout: Option<Duration>,
    ) -> Self {
        Self {
            state,
            link,
            key_type,
            cache_hit_timeout: cache_hit_timeout.unwrap_or(RPC_TIMEOUT),
            flights: Mutex::default(),
        }
    }

    pub(crate) fn link(&self) -> Arc<ServerLink> {
        self.link.clone()
    }

    /// Signs whatever the cache asks for, as soon as it asks.
    pub async fn run(self: Arc<Self>) {
        let mut batch = BatchSize::default();
        let mut calls = FuturesUnordered::new();
        let mut unhurried = 0;
        loop {
            let least = if unhurried == 0 { Priority::Prefetch } else { Priority::Waiting };
            while calls.len() < MAX_CALLS {
                let least = if unhurried == 0 { least } else { Priority::Waiting };
                let jobs = self.state.cache().take_jobs(batch.size(), least, self.state.now());
                let Some(first) = jobs.first() else { break };
                let hurried = first.priority == Priority::Waiting;
                unhurried += usize::from(!hurried);
                let this = self.clone();
                calls.push(async move { (hurried, this.sign(jobs).await) });
            }
            let least = if unhurried == 0 { Priority::Prefetch } else { Priority::Waiting };
            let wake = self.state.cache().next_wake(least);
            let pause = match wake {
                _ if calls.len() >= MAX_CALLS => LONG,
                Some(at) => {
                    Duration::from_millis(at.saturating_sub(self.state.now()).clamp(1, 60_000) as u64)
                }
                None => LONG,
            };
            tokio::select! {
                Some((hurried, succeeded)) = calls.next(), if !calls.is_empty() => {
                    unhurried -= usize::from(!hurried);
                    if succeeded { batch.succeeded() } else { batch.failed() }
                }
                () = self.state.work.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One batch. False if the call as a whole failed.
    async fn sign(&self, jobs: Vec<SignJob>) -> bool {
        let (requests, keys) = match self.requests(&jobs).await {
            Ok(made) => made,
            Err(error) => {
                self.all_failed(&jobs, &error);
                return true;
            }
        };
        announce(&jobs);
        let mut request = tonic::Request::new(BatchNewX509svidRequest { params: requests });
        request.metadata_mut().insert(PRIORITY_KEY, MetadataValue::from_static(priority(&jobs)));
        let counter = CallCounter::start(&["manager", "sync", "fetch_svids_updates"]);
        let answer = timed("signing X.509-SVIDs", self.link.svid().batch_new_x509svid(request)).await;
        counter.done(answer.as_ref().err().map_or(Code::Ok, |error| error.code));
        let results = match answer {
            Ok(response) if response.results.len() == jobs.len() => response.results,
            Ok(response) => {
                let error =
                    format!("the server answered {} requests of {}", response.results.len(), jobs.len());
                self.all_failed(&jobs, &error);
                return false;
            }
            Err(error) => {
                tracing::error!(subsystem_name = "manager", count = jobs.len(), error = %error, "SVID sync failed");
                self.all_failed(&jobs, &error.to_string());
                return false;
            }
        };
        let outcomes: Vec<Result<Svid, String>> = jobs
            .iter()
            .zip(results)
            .zip(keys)
            .map(|((job, result), key)| signed(&job.entry, result, &key))
            .collect();
        let now = self.state.now();
        for (job, outcome) in jobs.iter().zip(&outcomes) {
            if let Err(error) = outcome {
                tracing::warn!(subsystem_name = "manager", entry_id = &*job.entry.id, spiffe_id = %job.entry.spiffe_id, error, "X.509-SVID was not issued");
            }
        }
        let mut cache = self.state.cache();
        announce_short_lived(&jobs, &outcomes, cache.rotation());
        let updated = cache.settle(jobs.iter().zip(outcomes), now);
        let held = cache.svid_count();
        drop(cache);
        self.state.keep_budget();
        self.state.changed.notify_one();
        metrics::gauge!("lru_cache_svid_map_size", "svid_type" => "X509").set(held as f64);
        for (job, _) in jobs.iter().zip(updated).filter(|(_, updated)| *updated) {
            tracing::debug!(subsystem_name = "cache_manager", entry = &*job.entry.id, spiffe_id = %job.entry.spiffe_id, "SVID updated");
        }
        true
    }

    async fn requests(&self, jobs: &[SignJob]) -> Result<(Vec<NewX509svidParams>, Vec<PrivateKey>), String> {
        let entries: Vec<Arc<Entry>> = jobs.iter().map(|job| job.entry.clone()).collect();
        let key_type = self.key_type;
        let make = move || -> Result<(Vec<_>, Vec<_>), String> {
            let mut made = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
            for entry in entries {
                let (csr, key) = csr(&entry, key_type).map_err(|error| format!("making a key: {error}"))?;
                made.0.push(NewX509svidParams { entry_id: entry.id.to_string(), csr });
                made.1.push(key);
            }
            Ok(made)
        };
        let costly = matches!(key_type, KeyType::Rsa2048 | KeyType::Rsa4096);
        if jobs.len() <= INLINE_KEYS && !costly {
            make()
        } else {
            tokio::task::spawn_blocking(make).await.map_err(|error| format!("making keys: {error}"))?
        }
    }

    fn all_failed(&self, jobs: &[SignJob], error: &str) {
        let now = self.state.now();
        self.state.cache().settle(jobs.iter().map(|job| (job, Err(error.to_owned()))), now);
    }

    /// A JWT-SVID for `audience`, cached or new.
    pub(crate) async fn jwt(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        audience: &[String],
    ) -> Result<Arc<Token>, Arc<ServerError>> {
        self.jwt_within(entry, audience, RPC_TIMEOUT).await
    }

    /// The same for a caller that waits no longer than this: a cached token that could be renewed is better than none.
    pub(crate) async fn jwt_within(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        audience: &[String],
        most: Duration,
    ) -> Result<Arc<Token>, Arc<ServerError>> {
        let key = JwtKey::new(entry.spiffe_id.clone(), audience.to_vec());
        if entry.jwt_svid_include_jti {
            // Each of these tokens must be a fresh one.
            let fetching = self.clone().new_jwt(entry.clone(), audience.to_vec(), true);
            let late = |_| Err(ServerError::timed_out("signing a JWT-SVID"));
            return tokio::time::timeout(most, fetching).await.unwrap_or_else(late).map_err(Arc::new);
        }
        let found = self.state.jwt().find(&key, self.state.now());
        let ageing = match found {
            Found::Fresh(token) => return Ok(token),
            Found::Ageing(token) => Some(token),
            Found::Nothing => None,
        };
        let patience = if ageing.is_some() { self.cache_hit_timeout.min(most) } else { most };
        let fetching = self.fetching(&key, entry, audience, ageing.is_none());
        let fetched = tokio::time::timeout(patience, fetching).await;
        let late = || Err(Arc::new(ServerError::timed_out("signing a JWT-SVID")));
        match (fetched.unwrap_or_else(|_| late()), ageing) {
            (Err(error), Some(token)) => {
                tracing::warn!(
                    subsystem_name = "manager",
                    spiffe_id = %entry.spiffe_id,
                    error = %error,
                    "Unable to renew JWT; returning cached copy"
                );
                Ok(token)
            }
            (fetched, _) => fetched,
        }
    }

    /// One call at a time for each token, shared by all who wait for it.
    fn fetching(
        self: &Arc<Self>,
        key: &JwtKey,
        entry: &Arc<Entry>,
        audience: &[String],
        retry: bool,
    ) -> Flight {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key).and_then(WeakShared::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.upgrade().is_some());
        let (this, key_of_flight) = (self.clone(), key.clone());
        let (entry, audience) = (entry.clone(), audience.to_vec());
        let flight = async move {
            let token = this.clone().new_jwt(entry, audience, retry).await.map_err(Arc::new)?;
            let held = {
                let mut cache = this.state.jwt();
                cache.insert(key_of_flight, token.clone());
                cache.len()
            };
            this.state.keep_budget();
            this.state.changed.notify_one();
            metrics::gauge!("jwt_svid_cache_size").set(held as f64);
            Ok(token)
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key.clone(), weak);
        }
        flight
    }

    async fn new_jwt(
        self: Arc<Self>,
        entry: Arc<Entry>,
        audience: Vec<String>,
        retry: bool,
    ) -> Result<Arc<Token>, ServerError> {
        loop {
            let request = NewJwtsvidRequest { entry_id: entry.id.to_string(), audience: audience.clone() };
            let error = match timed("signing a JWT-SVID", self.link.svid().new_jwtsvid(request)).await {
                Ok(response) => {
                    let svid =
                        response.svid.ok_or_else(|| ServerError::other("JWTSVID response missing SVID"))?;
                    return token(svid).map(Arc::new);
                }
                Err(error) => error,
            };
            // SPIRE's list of what another try does not cure.
            let lasting = matches!(
                error.code,
                Code::Unknown
                    | Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::InvalidArgument
                    | Code::Unimplemented
                    | Code::NotFound
                    | Code::PermissionDenied
            );
            if lasting || !retry {
                return Err(error);
            }
            tokio::time::sleep(JWT_RETRY).await;
        }
    }
}

/// What the server is told of a batch: as urgent as its most urgent record.
fn priority(jobs: &[SignJob]) -> &'static str {
    match jobs.iter().map(|job| job.priority).min() {
        Some(Priority::Prefetch) => "prefetch",
        Some(Priority::Expiring) => "expiring",
        Some(Priority::Waiting) | None => "waiting",
    }
}

const LONG: Duration = Duration::from_mins(1);

/// SPIRE's lines about what it is about to ask for.
fn announce(jobs: &[SignJob]) {
    for SignJob { entry, replaces, .. } in jobs {
        let (entry_id, spiffe_id) = (&*entry.id, entry.spiffe_id.as_str());
        match replaces.and_then(|at| Timestamp::from_second(at).ok()) {
            None => {
                tracing::info!(subsystem_name = "manager", entry_id, spiffe_id, "Creating X509-SVID");
            }
            Some(expires_at) => {
                tracing::info!(subsystem_name = "manager", entry_id, spiffe_id, %expires_at, "Renewing X509-SVID");
            }
        }
    }
    let expiring = jobs.iter().filter(|job| job.expiring).count();
    if expiring > 0 {
        metrics::histogram!("cache_manager.expiring_svids").record(expiring as f64);
        tracing::debug!(
            subsystem_name = "manager",
            expiring_svids = expiring,
            "Updating expiring SVIDs in cache"
        );
    }
}

/// SPIRE's warning of SVIDs that cannot outlast an unreachable server for as long as was asked for.
fn announce_short_lived(jobs: &[SignJob], outcomes: &[Result<Svid, String>], rotation: RotationPolicy) {
    for (SignJob { entry, .. }, svid) in jobs.iter().zip(outcomes) {
        let Ok(svid) = svid else { continue };
        if rotation.falls_back(millis(svid.not_after - svid.not_before)) {
            tracing::warn!(subsystem_name = "manager", entry_id = &*entry.id, spiffe_id = %entry.spiffe_id, "X509 SVID lifetime isn't long enough to guarantee the availability_target, falling back to the default rotation strategy");
        }
    }
}

fn csr(entry: &Entry, key_type: KeyType) -> Result<(Vec<u8>, PrivateKey), steeple_spiffe::KeyError> {
    let key = PrivateKey::generate(key_type)?;
    let algorithm = key_type.x509_signature_algorithm();
    let subject = DistinguishedName::default_svid();
    let tbs = x509::csr_tbs(&subject, &key.public_key(), &[entry.spiffe_id.as_str()], &[]);
    let signature = key.sign(algorithm, &tbs)?;
    Ok((x509::assemble(&tbs, algorithm, &signature), key))
}

/// Checks that the server signed what was asked for.
fn signed(
    entry: &Entry,
    result: batch_new_x509svid_response::Result,
    key: &PrivateKey,
) -> Result<Svid, String> {
    let status = result.status.unwrap_or_default();
    if status.code != 0 {
        return Err(format!("{}: {}", Code::from(status.code).description(), status.message));
    }
    let chain = result.svid.ok_or("the server's answer has no SVID")?.cert_chain;
    let parse =
        |der: &Vec<u8>| Certificate::from_der(der).map_err(|error| format!("malformed certificate: {error}"));
    let leaf = parse(chain.first().ok_or("the server's answer has no certificate")?)?;
    let last = parse(chain.last().ok_or("the server's answer has no certificate")?)?;
    if leaf.public_key() != key.public_key() {
        return Err("the server signed another key".into());
    }
    match leaf.spiffe_id() {
        Ok(id) if id == entry.spiffe_id => {}
        Ok(id) => return Err(format!("the server signed {id} in place of {}", entry.spiffe_id)),
        Err(error) => return Err(format!("the server signed no SPIFFE ID: {error}")),
    }
    let key = key.pkcs8_der().map_err(|error| error.to_string())?;
    Ok(Svid {
        chain: Bytes::from(chain.concat()),
        key: Zeroizing::new(key.to_vec()),
        not_before: leaf.not_before(),
        not_after: leaf.not_after(),
        authority_key_id: last.authority_key_id().unwrap_or_default().into(),
    })
}

fn token(svid: steeple_proto::spire::api::types::Jwtsvid) -> Result<Token, ServerError> {
    let parsed = jwt::parse_insecure(&svid.token)
        .map_err(|error| ServerError::other(format!("the server's JWT-SVID is malformed: {error}")))?;
    Ok(Token {
        key_id: parsed.key_id.clone().unwrap_or_default(),
        issued_at: millis(if svid.issued_at != 0 {
            svid.issued_at
        } else {
            parsed.issued_at.unwrap_or_default()
        }),
        expires_at: millis(if svid.expires_at != 0 { svid.expires_at } else { parsed.expires_at }),
        token: svid.token,
    })
}
