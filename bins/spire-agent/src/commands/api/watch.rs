//! `api watch`: every answer of one FetchX509SVID stream, until it is interrupted.

use std::time::Duration;

use steeple_cli::{Api, ClientCommand, Failure, Session};
use steeple_config::FlagSet;
use steeple_proto::workload::X509svidRequest;
use steeple_runtime::clock::{Clock as _, SystemClock};

use super::client;
use super::svids::{self, Federated};

pub struct Watch;

/// go-spiffe's linear backoff between streams.
const BACKOFF_STEP: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

impl ClientCommand for Watch {
    const NAME: &'static str = "watch";
    const API: Api = Api::WorkloadWatch;

    fn flags(_: &mut FlagSet) -> Self {
        Self
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        tokio::select! {
            result = watch(session) => result,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                Err(tonic::Status::cancelled("context canceled").into())
            }
        }
    }
}

/// Ends when asking again cannot help.
async fn watch(session: &mut Session) -> Result<(), Failure> {
    let mut client = client(&session.channel);
    let mut last = SystemClock.monotonic();
    let mut backoff = BACKOFF_STEP;
    loop {
        let request = session.workload_request(X509svidRequest {});
        let mut stream = client.fetch_x509svid(request).await.map(tonic::Response::into_inner);
        let status = loop {
            let message = match &mut stream {
                Ok(stream) => stream.message().await,
                Err(status) => break status.clone(),
            };
            let answer = match message {
                Ok(Some(answer)) => answer,
                Ok(None) => break tonic::Status::unavailable("the agent ended the stream"),
                Err(status) => break status,
            };
            backoff = BACKOFF_STEP;
            match svids::parse(&answer) {
                Ok((mut svids, federated)) => {
                    // Shown without hints and by name: what a workload's library hands on.
                    svids.iter_mut().for_each(|svid| svid.hint.clear());
                    let federated: Federated = federated
                        .into_iter()
                        .map(|(id, bundle)| (id.strip_prefix("spiffe://").unwrap_or(&id).to_owned(), bundle))
                        .collect();
                    let now = SystemClock.monotonic();
                    let took = now.saturating_sub(last).as_nanos() as i128;
                    last = now;
                    session.io.print(&svids::pretty(&svids, &federated, took))?;
                }
                Err(failure) => session.io.eprint(&format!("{failure}\n")),
            }
        };
        if matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::Cancelled) {
            return Err(status.into());
        }
        session.io.eprint(&format!("{}\n", Failure::from(status)));
        tokio::time::sleep(backoff).await;
        backoff = (backoff + BACKOFF_STEP).min(BACKOFF_MAX);
    }
}
