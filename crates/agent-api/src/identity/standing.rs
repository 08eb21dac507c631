//! Where the agent stands, told to everybody who needs to know: log, metrics, health, sync, and whatever must be
//! forgotten.

use std::sync::{Mutex, PoisonError};

use steeple_agent_core::node::Standing;
use tokio::sync::watch;

/// A [`Standing`] with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    pub standing: Standing,
    /// What was heard last, empty while all is well. It may name servers and files, never secrets.
    pub reason: String,
    /// Unix seconds.
    pub since: i64,
    /// The server can be talked to.
    pub may_talk: bool,
}

/// Forgets something that may not be used any longer. It must not block.
pub type Forget = Box<dyn Fn() + Send + Sync>;

/// The newest [`Stand`], and what to do when it is one that forfeits everything.
pub(super) struct Standings {
    newest: watch::Sender<Stand>,
    forget: Mutex<Vec<Forget>>,
}

impl Standings {
    pub fn new(now: i64) -> Self {
        let stand =
            Stand { standing: Standing::Attesting, reason: String::new(), since: now, may_talk: false };
        let this = Self { newest: watch::Sender::new(stand), forget: Mutex::default() };
        Self::measure(Standing::Attesting);
        this
    }

    pub fn when_forfeited(&self, forget: Forget) {
        self.forget.lock().unwrap_or_else(PoisonError::into_inner).push(forget);
    }

    pub fn subscribe(&self) -> watch::Receiver<Stand> {
        self.newest.subscribe()
    }

    pub fn newest(&self) -> Stand {
        self.newest.borrow().clone()
    }

    /// Takes over what the state machine says. True if everything is to be given up now.
    pub fn update(&self, standing: Standing, may_talk: bool, reason: Option<&str>, now: i64) -> bool {
        let mut before = None;
        self.newest.send_if_modified(|stand| {
            let was = stand.clone();
            if stand.standing != standing {
                before = Some(stand.standing);
                (stand.standing, stand.since) = (standing, now);
                stand.reason.clear();
            }
            if let Some(reason) = reason {
                reason.clone_into(&mut stand.reason);
            }
            stand.may_talk = may_talk;
            *stand != was
        });
        let Some(before) = before else { return false };
        self.tell(before);
        let forfeited = standing.forfeits() && !before.forfeits();
        if forfeited {
            for forget in &*self.forget.lock().unwrap_or_else(PoisonError::into_inner) {
                forget();
            }
        }
        forfeited
    }

    fn tell(&self, before: Standing) {
        let stand = self.newest();
        Self::measure(stand.standing);
        let (state, was, reason) = (stand.standing.name(), before.name(), stand.reason);
        match stand.standing {
            Standing::Ready => {
                tracing::info!(subsystem_name = "manager", state, was, "Agent state changed");
            }
            standing if standing.forfeits() => {
                tracing::error!(
                    subsystem_name = "manager",
                    state,
                    was,
                    error = reason,
                    "Agent state changed: every identity and key is dropped; {}",
                    advice(standing)
                );
            }
            standing => {
                tracing::warn!(
                    subsystem_name = "manager",
                    state,
                    was,
                    error = reason,
                    "Agent state changed: workloads keep what they have while it is valid; {}",
                    advice(standing)
                );
            }
        }
    }

    /// `agent_state{state}` is 1 for the one it is in.
    fn measure(now: Standing) {
        for standing in Standing::ALL {
            let value = if standing == now { 1.0 } else { 0.0 };
            metrics::gauge!("agent_state", "state" => standing.name()).set(value);
        }
    }
}

/// What ends this state.
pub fn advice(standing: Standing) -> &'static str {
    match standing {
        Standing::Attesting | Standing::Reattesting | Standing::Rebootstrapping => {
            "it goes on by itself as soon as the server attests it"
        }
        Standing::Ready => "nothing to do",
        Standing::Expired => {
            "it attests anew when the server is back; an agent of a join token needs a new one (join_token_file)"
        }
        Standing::Evicted => {
            "to let it in again, make a token with `spire-server token generate` and write it to join_token_file"
        }
        Standing::Refused => {
            "the server's log says why it does not attest this node; it is asked again now and then"
        }
        Standing::Banned => {
            "to let it in again, delete its record with `spire-server agent evict`; with join_token it needs a new token, too"
        }
        Standing::Untrusted => {
            "check that server_address leads to the right server; rebootstrap_mode lets the agent take up a new trust bundle"
        }
    }
}
