//! `api …`: the Workload API as a workload sees it.

mod explain;
mod fetch_jwt;
mod fetch_x509;
pub mod mtls_check;
mod svids;
mod validate_jwt;
mod watch;

use steeple_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tonic::transport::Channel;

pub use explain::Explain;
pub use fetch_jwt::FetchJwt;
pub use fetch_x509::FetchX509;
pub use validate_jwt::ValidateJwt;
pub use watch::Watch;

fn client(channel: &Channel) -> SpiffeWorkloadApiClient<Channel> {
    SpiffeWorkloadApiClient::new(channel.clone()).max_decoding_message_size(steeple_cli::session::MAX_ANSWER)
}
