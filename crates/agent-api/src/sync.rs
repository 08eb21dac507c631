//! Entries and bundles: pushed by our server, polled from SPIRE's.

mod poll;

use std::sync::Arc;
use std::time::Duration;

use steeple_agent_core::view::{Delta, ViewError};
use steeple_proto::spire::api::server::agent::v1::PostStatusRequest;
use steeple_proto::steeple::agent::v1::{WatchRequest, WatchResponse};
use steeple_runtime::backoff::Backoff;
use steeple_runtime::metrics::CallCounter;
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::convert;
use crate::failure::ServerError;
use crate::identity::{AgentIdentity, IdentityError, timed};
use crate::link::ServerLink;
use crate::state::AgentState;

/// Keeps the view current.
pub struct Sync {
    state: Arc<AgentState>,
    link: Arc<ServerLink>,
    identity: Arc<AgentIdentity>,
    config: SyncConfig,
    synced: watch::Sender<bool>,
}

/// How to sync.
#[derive(Clone, Debug)]
pub struct SyncConfig {
    /// `experimental.sync_interval`
    pub interval: Duration,
    /// `experimental.use_sync_authorized_entries`
    pub by_revision: bool,
    /// Told to the server at start.
    pub version: String,
}

/// A stream that ended is opened again after this, growing to [`WATCH_MAX_WAIT`].
const WATCH_FIRST_WAIT: Duration = Duration::from_millis(250);
const WATCH_MAX_WAIT: Duration = Duration::from_secs(30);
/// A server that does not push is asked again whether it does after this many polls.
const POLLS_PER_WATCH: u32 = 60;
/// SPIRE's cap of the poll's growing pause.
const POLL_MAX_WAIT: Duration = Duration::from_mins(8);
const POLL_MAX_FACTOR: u32 = 48;

/// How SPIRE begins the error of a sync whose entries did not come.
const FETCH_FAILED: &str = "failed to fetch authorized entries";

/// SPIRE's line for it.
fn log_failed_fetch(error: &ServerError) {
    tracing::error!(
        subsystem_name = "manager",
        error = error.after(FETCH_FAILED),
        "Failed to fetch authorized entries"
    );
}

/// How a watch ended.
enum Ended {
    /// The server does not know our stream.
    NotOffered,
    /// Open it again: at once if it brought anything.
    Broken { error: ServerError, lived: bool },
}

impl Sync {
    pub fn new(
        state: Arc<AgentState>,
        link: Arc<ServerLink>,
        identity: Arc<AgentIdentity>,
        config: SyncConfig,
    ) -> Self {
        Self { state, link, identity, config, synced: watch::Sender::new(false) }
    }

    /// Becomes true with the first complete view.
    pub fn first_sync(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Syncs whenever there is an SVID to do so with. Ends only where the agent does.
    pub async fn run(&self) -> Result<(), IdentityError> {
        let mut wait = Backoff::with_max(WATCH_FIRST_WAIT, WATCH_MAX_WAIT);
        let mut told = None;
        loop {
            self.identity.may_talk().await;
            let attested = self.identity.attestations();
            if told.replace(attested) != Some(attested) {
                self.post_status().await?;
            }
            if !self.identity.can_talk() {
                continue;
            }
            let generation = self.link.generation();
            match self.watch().await {
                Ended::NotOffered => {
                    tracing::debug!(subsystem_name = "manager", "The server does not push: polling it");
                    self.poll_a_while().await?;
                }
                Ended::Broken { error, lived } => {
                    self.state.view().connection_lost();
                    self.judge(generation, &error).await?;
                    if !self.identity.can_talk() {
                        continue;
                    }
                    if lived {
                        wait.reset();
                        tracing::debug!(subsystem_name = "manager", error = %error, "The stream from the server ended; opening it again");
                    } else {
                        log_failed_fetch(&error);
                        tracing::error!(subsystem_name = "manager", error = %error, "Synchronize failed");
                    }
                    self.change_server(generation);
                    tokio::time::sleep(wait.next_wait()).await;
                }
            }
        }
    }

    async fn post_status(&self) -> Result<(), IdentityError> {
        let generation = self.link.generation();
        let request =
            PostStatusRequest { agent_version: self.config.version.clone(), ..PostStatusRequest::default() };
        if let Err(error) = timed("posting the agent's status", self.link.agent().post_status(request)).await
        {
            // Older servers do not know the call.
            tracing::error!(subsystem_name = "manager", agent_version = self.config.version, error = %error, "Failed to post agent status");
            self.judge(generation, &error).await?;
        }
        Ok(())
    }

    /// A refusal of this agent changes where it stands, and so does a server that is not the one, unless the call went over a connection that is
    /// replaced by now.
    async fn judge(&self, generation: u64, error: &ServerError) -> Result<(), IdentityError> {
        if generation != self.link.generation() {
            return Ok(());
        }
        if error.is_unknown_authority() {
            return self.identity.untrusted(error).await;
        }
        self.identity.denied(error).await
    }

    /// The next try goes to another server, unless the connection is a new one by now.
    fn change_server(&self, generation: u64) {
        if generation == self.link.generation()
            && let Err(error) = self.link.elsewhere()
        {
            tracing::error!(subsystem_name = "manager", error = %error, "Another server cannot be chosen");
        }
    }

    /// Follows the push stream for as long as it lasts.
    async fn watch(&self) -> Ended {
        let request = {
            let view = self.state.view();
            WatchRequest { last_revision: view.revision(), log_id: view.log_id().to_owned() }
        };
        let mut lived = false;
        let broken = |status: &Status, lived| {
            let error = ServerError::new(FETCH_FAILED, status);
            let unlisted = status.code() == Code::PermissionDenied
                && error.denial.is_none()
                && status.message().contains("authorization denied for method");
            if status.code() == Code::Unimplemented || unlisted {
                Ended::NotOffered
            } else {
                Ended::Broken { error, lived }
            }
        };
        let opened = tokio::time::timeout(crate::link::RPC_TIMEOUT, self.link.sync().watch(request)).await;
        let mut stream = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return broken(&status, false),
            Err(_) => return Ended::Broken { error: ServerError::timed_out(FETCH_FAILED), lived },
        };
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return broken(&Status::unavailable("the server closed the stream"), lived),
                Err(status) => return broken(&status, lived),
            };
            if let Err(error) = self.take(message).await {
                return Ended::Broken { error, lived: false };
            }
            lived = true;
        }
    }

    /// Puts one message in force.
    async fn take(&self, message: WatchResponse) -> Result<(), ServerError> {
        let complete = !message.more;
        let call = CallCounter::start(&["manager", "sync", "fetch_entries_updates"]);
        let rotate_agent = message.rotate_agent;
        let delta = delta(message);
        let changes = self.state.view().apply(delta);
        let changes = match changes {
            Ok(changes) => changes,
            Err(error @ (ViewError::Stale { .. } | ViewError::OtherLog { .. })) => {
                call.done(Code::FailedPrecondition);
                return Err(ServerError::other(error.to_string()));
            }
        };
        self.own_bundle(&changes).await;
        self.heard().await;
        self.state.apply(&changes);
        if rotate_agent {
            self.identity.rotate_now();
        }
        if complete {
            self.done();
            call.done(Code::Ok);
        } else {
            call.discard();
        }
        Ok(())
    }

    async fn own_bundle(&self, changes: &steeple_agent_core::Changes) {
        let own = changes.bundles.iter().find(|bundle| bundle.trust_domain == self.state.trust_domain);
        if let Some(bundle) = own
            && let Err(error) = self.identity.bundle_changed(bundle).await
        {
            tracing::error!(subsystem_name = "manager", error = %error, "Could not store bundle");
        }
    }

    /// The server answered, so it is the one.
    async fn heard(&self) {
        if let Err(error) = self.identity.heard().await {
            tracing::error!(subsystem_name = "manager", error = %error, "The agent's state could not be stored");
        }
    }

    fn done(&self) {
        self.state.synced();
        self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
    }

    async fn poll_a_while(&self) -> Result<(), IdentityError> {
        let most = POLL_MAX_WAIT.min(self.config.interval.saturating_mul(POLL_MAX_FACTOR));
        let mut wait = Backoff::with_max(self.config.interval, most);
        for _ in 0..POLLS_PER_WATCH {
            let generation = self.link.generation();
            let call = CallCounter::start(&["manager", "sync", "fetch_entries_updates"]);
            let polled = self.poll().await;
            call.done(polled.as_ref().err().map_or(Code::Ok, |error| error.code));
            match polled {
                Ok(()) => wait.reset(),
                Err(error) => {
                    tracing::error!(subsystem_name = "manager", error = %error, "Synchronize failed");
                    self.judge(generation, &error).await?;
                    if !self.identity.can_talk() {
                        return Ok(());
                    }
                    self.change_server(generation);
                }
            }
            tokio::time::sleep(wait.next_wait()).await;
        }
        Ok(())
    }
}

/// Anything malformed is left out with a log line: one bad entry must not keep the others from their workloads.
fn delta(message: WatchResponse) -> Delta {
    Delta {
        revision: message.revision,
        log_id: message.log_id,
        snapshot: message.snapshot,
        more: message.more,
        entries: message.entries.into_iter().filter_map(good_entry).collect(),
        removed: message.removed_entry_ids,
        bundles: message.bundles.into_iter().filter_map(good_bundle).collect(),
        removed_bundles: message
            .removed_bundles
            .iter()
            .filter_map(|name| convert::trust_domain("removed_bundles", name).ok())
            .collect(),
        rotated: message.rotate_entry_ids,
        rotate_all: message.rotate_agent,
    }
}

fn good_entry(proto: steeple_proto::spire::api::types::Entry) -> Option<steeple_agent_core::Entry> {
    let id = proto.id.clone();
    convert::entry(proto)
        .map_err(|error| {
            tracing::error!(subsystem_name = "manager", entry_id = id, error = %error, "Malformed entry from the server left out");
        })
        .ok()
}

fn good_bundle(proto: steeple_proto::spire::api::types::Bundle) -> Option<steeple_spiffe::Bundle> {
    let name = proto.trust_domain.clone();
    convert::bundle(proto)
        .map_err(|error| {
            tracing::error!(subsystem_name = "manager", trust_domain_id = name, error = %error, "Malformed bundle from the server left out");
        })
        .ok()
}
