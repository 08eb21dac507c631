//! `entry …`: registration entries.

mod count;
mod create;
mod delete;
mod filter;
mod input;
mod show;
mod sort;
mod update;

use steeple_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use tonic::transport::Channel;

pub use count::Count;
pub use create::Create;
pub use delete::Delete;
pub use show::Show;
pub use update::Update;

fn client(channel: &Channel) -> EntryClient<Channel> {
    EntryClient::new(channel.clone()).max_decoding_message_size(steeple_cli::session::MAX_ANSWER)
}
