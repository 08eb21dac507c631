//! WIT-SVIDs from the server. The agent makes the key: the server sees its public half only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use steeple_agent_core::wit_cache::{Held, Wit};
use steeple_agent_core::{Entry, millis};
use steeple_proto::spire::api::server::svid::v1::{BatchNewWitsvidRequest, NewWitsvidParams};
use steeple_spiffe::jwt::WitSvid;
use steeple_spiffe::{KeyType, PrivateKey};
use tonic::Code;
use zeroize::Zeroizing;

use crate::failure::ServerError;
use crate::identity::timed;
use crate::link::ServerLink;
use crate::state::AgentState;

/// Small and quick to make, and every validator has its algorithm. `workload_x509_svid_key_type` is about X.509.
const KEY_TYPE: KeyType = KeyType::EcP256;
/// How long one that is due and still valid waits for its successor.
const AGEING_PATIENCE: Duration = Duration::from_secs(5);

/// Asks the server to sign WIT-SVIDs, once for each entry however many wait for it.
pub(crate) struct Wits {
    state: Arc<AgentState>,
    link: Arc<ServerLink>,
    flights: Mutex<HashMap<Arc<str>, WeakShared<BoxFuture<'static, Fetched>>>>,
}

type Fetched = Result<Held, Arc<ServerError>>;
type Flight = Shared<BoxFuture<'static, Fetched>>;

impl Wits {
    pub fn new(state: Arc<AgentState>, link: Arc<ServerLink>) -> Self {
        Self { state, link, flights: Mutex::default() }
    }

    /// The entry's WIT-SVID: the one held, or a new one once that is due.
    pub async fn of(self: &Arc<Self>, entry: &Arc<Entry>) -> Fetched {
        let now = self.state.now();
        let held = self.state.wit().find(entry, now);
        match held {
            None => self.fetching(entry).await,
            Some(held) if held.due > now => Ok(held),
            Some(ageing) => match tokio::time::timeout(AGEING_PATIENCE, self.fetching(entry)).await {
                Ok(Ok(fresh)) => Ok(fresh),
                late_or_failed => {
                    let error = late_or_failed.ok().and_then(Result::err).map(|error| error.to_string());
                    let error = error.unwrap_or_else(|| "the server did not answer in time".to_owned());
                    tracing::warn!(subsystem_name = "manager", spiffe_id = %entry.spiffe_id, error, "Unable to renew WIT-SVID; keeping the one held");
                    Ok(ageing)
                }
            },
        }
    }

    fn fetching(self: &Arc<Self>, entry: &Arc<Entry>) -> Flight {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&entry.id).and_then(WeakShared::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.upgrade().is_some());
        let (this, of) = (self.clone(), entry.clone());
        let flight = async move {
            let wit = this.sign(&of).await.map_err(Arc::new)?;
            let now = this.state.now();
            Ok(this.state.wit().insert(&of, wit, fastrand::f64(), now))
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(entry.id.clone(), weak);
        }
        flight
    }

    async fn sign(&self, entry: &Entry) -> Result<Wit, ServerError> {
        let key = PrivateKey::generate(KEY_TYPE)
            .map_err(|error| ServerError::other(format!("making a key for a WIT-SVID: {error}")))?;
        let public = key.public_key();
        let params = NewWitsvidParams {
            entry_id: entry.id.to_string(),
            public_key: public.spki_der().to_vec(),
            signing_algorithm: KEY_TYPE.jws_algorithm().jws_name().to_owned(),
        };
        let request = BatchNewWitsvidRequest { params: vec![params] };
        let answer = timed("signing a WIT-SVID", self.link.svid().batch_new_witsvid(request)).await?;
        let result = answer.results.into_iter().next();
        let result = result.ok_or_else(|| ServerError::other("the server's answer has no WIT-SVID"))?;
        // SPIRE's server leaves the status of what went well out.
        let status = result.status.unwrap_or_default();
        if status.code != 0 {
            let status = tonic::Status::new(Code::from(status.code), status.message);
            return Err(ServerError::new("signing a WIT-SVID", &status));
        }
        let svid = result.svid.ok_or_else(|| ServerError::other("the server's answer has no WIT-SVID"))?;
        let token = Zeroizing::new(svid.token);
        let parsed = WitSvid::parse_insecure(&token)
            .map_err(|error| ServerError::other(format!("the server's WIT-SVID is malformed: {error}")))?;
        if parsed.id != entry.spiffe_id {
            let text = format!("the server signed {} in place of {}", parsed.id, entry.spiffe_id);
            return Err(ServerError::other(text));
        }
        if parsed.confirmation.0 != public {
            return Err(ServerError::other("the server's WIT-SVID is bound to another key"));
        }
        let key = key.to_jwk().map_err(|error| ServerError::other(format!("writing a JWK: {error}")))?;
        let issued_at = parsed.issued_at.unwrap_or(svid.issued_at);
        Ok(Wit {
            token,
            key,
            key_id: parsed.key_id,
            issued_at: millis(issued_at),
            expires_at: millis(parsed.expires_at),
        })
    }
}
