//! `agent …`: attested agents.

mod filter;
mod list;
mod one;
mod purge;
mod time;

use steeple_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use tonic::transport::Channel;

pub use list::{Count, List};
pub use one::{Ban, Evict, Show};
pub use purge::Purge;

fn client(channel: &Channel) -> AgentClient<Channel> {
    AgentClient::new(channel.clone()).max_decoding_message_size(steeple_cli::session::MAX_ANSWER)
}

/// Agents per page: comfortably under what SPIRE's own client takes as one message.
const PAGE: i32 = 1000;
