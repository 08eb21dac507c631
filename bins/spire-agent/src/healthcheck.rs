//! `spire-agent healthcheck`

use std::future::Future;

use steeple_cli::{Api, ClientCommand, Failure, Session};
use steeple_config::{Flag, FlagSet};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// `-shallow` is accepted and, as in SPIRE, changes nothing.
pub struct HealthCheck {
    verbose: Flag<bool>,
}

impl ClientCommand for HealthCheck {
    const NAME: &'static str = "healthcheck";
    const API: Api = Api::WorkloadWatch;

    fn flags(flags: &mut FlagSet) -> Self {
        flags.bool("shallow", false, "Perform a less stringent health check");
        Self { verbose: flags.bool("verbose", false, "Print verbose information") }
    }

    fn run(&self, session: &mut Session) -> impl Future<Output = Result<(), Failure>> {
        let verbose = self.verbose.get();
        async move {
            check(session, verbose).await.map_err(|e| Failure::new(format!("Agent is unhealthy: {e}")))?;
            session.io.print("Agent is healthy.\n")
        }
    }
}

async fn check(session: &mut Session, verbose: bool) -> Result<(), Failure> {
    if verbose {
        session.io.print("Checking agent health...\n")?;
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
        other => Err(Failure::new(format!("agent returned status {:?}", other.as_str_name()))),
    }
}
