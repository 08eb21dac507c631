//! What happens where SPIRE's agent exits.

use super::*;

/// SPIRE's patience with a server that does not attest, where its exits are asked for.
pub(super) fn give_up_after(config: &IdentityConfig) -> Duration {
    match config.patience.rebootstrap {
        node::Rebootstrap::Never => Duration::from_mins(1),
        _ => Duration::from_hours(24),
    }
}

/// What a turned clock is noticed by, and who wants to know.
#[derive(Default)]
pub(super) struct Clockwork {
    /// Wall clock less steady clock.
    offset: Option<i64>,
    pub turned: Vec<Forget>,
}

/// A clock is corrected by less all the time.
const JUMP: i64 = 30_000;

/// SPIRE's text.
const CANNOT_REBOOTSTRAP: &str = "you have requested rebootstrap support but the NodeAttestor plugin or the spire server configuration is not allowing it";

impl AgentIdentity {
    /// Changes the state machine and tells what came of it.
    pub(super) fn update<T>(
        &self,
        reason: Option<&str>,
        change: impl FnOnce(&mut Node, Time) -> T,
    ) -> (T, bool) {
        let time = self.time();
        let mut held = self.held();
        let out = change(&mut held.node, time);
        let (standing, may_talk) = (held.node.standing(), held.node.may_talk());
        drop(held);
        let forfeited = self.standings.update(standing, may_talk, reason, self.config.clock.now());
        self.changed.notify_one();
        (out, forfeited)
    }

    /// Tells those who wait for times by the wall clock when it jumps: set by hand, or after the machine slept.
    pub(super) fn mind_the_clock(&self) {
        let time = self.time();
        let offset = time.wall - time.steady;
        let mut clockwork = self.clockwork.lock().unwrap_or_else(PoisonError::into_inner);
        let jump = offset - clockwork.offset.replace(offset).unwrap_or(offset);
        if jump.abs() > JUMP {
            tracing::warn!(
                subsystem_name = "manager",
                seconds = jump / 1000,
                "The clock jumped: everything that waits for a time is looked at anew"
            );
            clockwork.turned.iter().for_each(|turned| turned());
        }
    }

    /// Whether `rebootstrap_mode` and this node go together.
    pub(super) fn check_rebootstrap(&self) -> Result<(), IdentityError> {
        let node = self.held().node;
        if node.must_not_run() {
            return Err(IdentityError::GaveUp(CANNOT_REBOOTSTRAP));
        }
        if node.will_not_rebootstrap() {
            tracing::warn!("{CANNOT_REBOOTSTRAP}. Disabling");
        }
        Ok(())
    }

    /// An attempt to renew or attest failed. Errors when the agent has to end; `deadline` is SPIRE's for the first
    /// attestation.
    pub(super) async fn stumbled(
        &self,
        tried: Next,
        error: IdentityError,
        deadline: Option<Duration>,
    ) -> Result<(), IdentityError> {
        if let IdentityError::Server(refusal) = &error
            && refusal.denial.is_some()
        {
            if !self.config.recovers && deadline.is_some() {
                return Err(error);
            }
            return self.denied(refusal).await;
        }
        let has_bundle = !self.held().data.bundle.is_empty();
        if error.is_unknown_authority() && has_bundle {
            self.distrust(&error.to_string()).await?;
        }
        let failure = error.failure();
        let text = error.to_string();
        let before = self.standings.newest().standing;
        // A first agent whose configuration is wrong says so at once; its supervisor may try again.
        if deadline.is_some() && self.held().fresh && error.is_final() {
            return Err(error);
        }
        let ((), forfeited) =
            self.update(Some(&text), |node, time| node.failed(failure, fastrand::f64(), time));
        let standing = self.standings.newest().standing;
        let next = self.held().node.next(self.time());
        let wait = match next {
            Next::Wait(left) => Duration::from_millis(left.max(0) as u64),
            _ => Duration::ZERO,
        };
        match deadline {
            Some(_) => {
                tracing::warn!(error = %error, retry_interval = ?wait, "Failed to retrieve attestation result");
            }
            None => {
                tracing::error!(subsystem_name = "manager", error = %error, retry_interval = ?wait, "Unable to rotate agent SVID");
            }
        }
        if forfeited {
            self.forfeit().await;
        }
        if self.config.recovers {
            return Ok(());
        }
        let too_late = deadline.is_some_and(|deadline| self.config.clock.monotonic() + wait > deadline);
        if too_late || (deadline.is_some() && error.is_final() && failure != Failure::Passing) {
            return Err(error);
        }
        if deadline.is_none()
            && tried == Next::Attest
            && (standing.forfeits() || before == Standing::Reattesting)
        {
            tracing::error!(error = %error, "Agent failed re-attestation; removing SVID and shutting down");
            self.forfeit().await;
            return Err(error);
        }
        if deadline.is_none() && standing == Standing::Expired {
            tracing::error!(subsystem_name = "manager", error = %error, "Could not rotate agent SVID: the current one has already expired");
            return Err(error);
        }
        Ok(())
    }

    /// What a refusal of this agent means. Errors when the agent has to end.
    pub(crate) async fn denied(&self, error: &ServerError) -> Result<(), IdentityError> {
        let Some(denial) = error.denial else { return Ok(()) };
        let known = self.standings.newest().standing;
        let text = error.to_string();
        let (again, forfeited) = self.update(Some(&text), |node, time| node.denied(denial, time));
        if again {
            if known != Standing::Reattesting {
                tracing::warn!(error = %error, "Agent needs to re-attest; will attempt to re-attest");
            }
            return Ok(());
        }
        if forfeited {
            self.forfeit().await;
        }
        if self.config.recovers {
            return Ok(());
        }
        let (message, why) = match denial {
            Denial::Banned => ("Agent is banned: removing SVID and shutting down", "agent is banned"),
            _ => (
                "Agent needs to re-attest: removing SVID and shutting down",
                "agent needs to attest again: the server no longer knows it",
            ),
        };
        tracing::error!(error = %error, "{message}");
        self.forfeit().await;
        Err(IdentityError::GaveUp(why))
    }

    /// The server's certificate is under no authority that we know. Errors when the agent has to end.
    pub(crate) async fn untrusted(&self, error: &ServerError) -> Result<(), IdentityError> {
        if !self.config.recovers && self.config.patience.rebootstrap == node::Rebootstrap::Never {
            tracing::info!(subsystem_name = "manager", error = %error, "Synchronize failed, non-recoverable error");
            return Err(IdentityError::Svid(format!("failed to sync with SPIRE Server: {error}")));
        }
        self.distrust(&error.to_string()).await
    }

    async fn distrust(&self, text: &str) -> Result<(), IdentityError> {
        self.update(Some(text), Node::untrusted);
        let (left, news) = {
            let mut held = self.held();
            let left = held.node.time_left(self.time());
            let news = left.is_some() && held.bootstrap.distrusted(self.config.clock.now());
            (left, news)
        };
        match left {
            Some(0) | None => {}
            Some(left) => {
                let time_left = Duration::from_millis(left as u64);
                tracing::info!(?time_left, "Trust Bundle and Server don't agree, ignoring for now");
            }
        }
        // So that a restart does not begin to wait anew.
        if news { self.store().await } else { Ok(()) }
    }

    /// The server was found to be the one.
    pub(crate) async fn heard(&self) -> Result<(), IdentityError> {
        let (untrusted, stored) = {
            let held = self.held();
            (held.node.standing() == Standing::Untrusted, held.bootstrap.distrusting().is_some())
        };
        if untrusted {
            self.update(None, |node, _| node.heard());
        }
        if stored {
            self.held().bootstrap.succeeded();
            self.store().await?;
        }
        Ok(())
    }

    /// Gives up the old trust: the bootstrap source has the word from now on.
    pub(super) async fn rebootstrap(&self) -> Result<(), IdentityError> {
        tracing::warn!("Trust Bundle and Server don't agree, rebootstrapping");
        {
            let mut held = self.held();
            held.data.svid.clear();
            held.data.bundle.clear();
            held.bootstrap.begins_anew(self.config.clock.now());
        }
        self.link.identity.clear();
        self.link.bundles.remove(&self.config.trust_domain);
        self.store().await?;
        if !self.config.recovers {
            return Err(IdentityError::GaveUp("shutting down for rebootstrapping"));
        }
        self.link.reconnect()?;
        self.update(None, Node::rebootstrapping);
        Ok(())
    }

    /// Deletes the agent's SVID and its keys; the bundle stays. What cannot be deleted is told, and does not keep the
    /// rest from going.
    pub(super) async fn forfeit(&self) {
        {
            let mut held = self.held();
            held.data.svid.clear();
            held.key_id = None;
        }
        self.link.identity.clear();
        if let Err(error) = self.link.reconnect() {
            tracing::error!(error = %error, "The connection to the server cannot be closed");
        }
        if let Err(error) = self.keys.destroy().await {
            tracing::error!(error = %error, "The agent's keys could not be deleted");
        }
        if let Err(error) = self.store().await {
            tracing::error!(error = %error, "Failed to remove SVID");
        }
    }
}
