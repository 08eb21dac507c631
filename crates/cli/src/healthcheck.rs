//! `healthcheck`: asks a running daemon how it is.

use std::marker::PhantomData;

use steeple_config::{Flag, FlagSet};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::{Api, ClientCommand, Failure, Session};

/// Whose health, and in which words (SPIRE's, which differ).
pub trait Subject {
    const API: Api;
    /// `agent`: for progress and statuses.
    const NAME: &'static str;
    /// `Agent`: for "… is healthy."
    const TITLE: &'static str;
    /// Before "is unhealthy".
    const UNHEALTHY: &'static str;
}

/// `-shallow` is accepted and, as in SPIRE, changes nothing.
pub struct HealthCheck<S> {
    verbose: Flag<bool>,
    subject: PhantomData<S>,
}

impl<S: Subject> ClientCommand for HealthCheck<S> {
    const NAME: &'static str = "healthcheck";
    const API: Api = S::API;

    fn flags(flags: &mut FlagSet) -> Self {
        flags.bool("shallow", false, "Perform a less stringent health check");
        Self { verbose: flags.bool("verbose", false, "Print verbose information"), subject: PhantomData }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        if let Err(why) = check::<S>(session, self.verbose.get()).await {
            return Err(Failure::new(format!("{} is unhealthy: {why}", S::UNHEALTHY)));
        }
        session.io.print(&format!("{} is healthy.\n", S::TITLE))
    }
}

async fn check<S: Subject>(session: &mut Session, verbose: bool) -> Result<(), Failure> {
    if verbose {
        session.io.print(&format!("Checking {} health...\n", S::NAME))?;
    }
    let mut client = HealthClient::new(session.channel.clone());
    let answer = match client.check(HealthCheckRequest::default()).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            if verbose {
                session.io.eprint(&format!("Failed to check health: {}\n", Failure::from(status)));
            }
            return Err(Failure::new("unable to determine health"));
        }
    };
    match answer.status() {
        ServingStatus::Serving => Ok(()),
        other => Err(Failure::new(format!("{} returned status {:?}", S::NAME, other.as_str_name()))),
    }
}
