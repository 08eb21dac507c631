//! `api watch`: every answer of one FetchX509SVID stream, until it is interrupted.

use std::cell::Cell;
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
        let waiting = Cell::new(false);
        let interrupted = tokio::select! {
            result = watch(session, &waiting) => return result,
            interrupted = tokio::signal::ctrl_c() => interrupted,
        };
        interrupted?;
        if waiting.get() {
            return Err(Failure::new("context canceled"));
        }
        let cancelled = Failure::from(tonic::Status::cancelled("context canceled"));
        // Said twice, as SPIRE says it: the stream ended, and so did the watch.
        session.io.eprint(&format!("{cancelled}\n"));
        Err(cancelled)
    }
}

/// Ends when asking again cannot help. Tells whether it waits before it asks again.
async fn watch(session: &mut Session, waiting: &Cell<bool>) -> Result<(), Failure> {
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
                    for svid in &mut svids {
                        svid.hint.clear();
                    }
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
        let is_final = matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::Cancelled);
        let failure = Failure::from(status);
        session.io.eprint(&format!("{failure}\n"));
        if is_final {
            return Err(failure);
        }
        waiting.set(true);
        tokio::time::sleep(backoff).await;
        waiting.set(false);
        backoff = (backoff + BACKOFF_STEP).min(BACKOFF_MAX);
    }
}
