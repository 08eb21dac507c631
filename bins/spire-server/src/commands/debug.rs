//! `debug getinfo`: the server at a glance.

use steeple_cli::debug::Glance;
use steeple_cli::{Api, ClientCommand, Failure, Session, go};
use steeple_config::FlagSet;
use steeple_proto::spire::api::server::debug::v1::debug_client::DebugClient;
use steeple_proto::spire::api::server::debug::v1::{GetInfoRequest, GetInfoResponse};

use super::output;

pub struct GetInfo;

impl ClientCommand for GetInfo {
    const NAME: &'static str = "debug getinfo";
    const API: Api = Api::Server;

    fn flags(_: &mut FlagSet) -> Self {
        Self
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let info = DebugClient::new(session.channel.clone()).get_info(GetInfoRequest {}).await?.into_inner();
        session.answer("spire.api.server.debug.v1.GetInfoResponse", &info, |info| Ok(pretty(info)))
    }
}

fn pretty(info: &GetInfoResponse) -> String {
    let mut text = Glance::new("Server", 25);
    text.line("Uptime:", go::seconds(i64::from(info.uptime)));
    text.line("Registered Agents:", info.agents_count);
    text.line("Registration Entries:", info.entries_count);
    text.line("Federated Bundles:", info.federated_bundles_count);
    for certificate in &info.svid_chain {
        let id = certificate.id.as_ref().map(|id| output::id(Some(id)));
        text.certificate(id.as_deref(), &certificate.subject, certificate.expires_at);
    }
    text.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeple_proto::spire::api::server::debug::v1::get_info_response::Cert;

    #[test]
    fn text() {
        let info = GetInfoResponse {
            svid_chain: vec![Cert { id: None, expires_at: 60, subject: "O=SPIRE,C=US".into() }],
            uptime: 61,
            agents_count: 1,
            federated_bundles_count: 2,
            entries_count: 3,
        };
        assert_eq!(
            pretty(&info),
            "Server Debug Info:\n\
             \x20 Uptime:                  1m1s\n\
             \x20 Registered Agents:       1\n\
             \x20 Registration Entries:    3\n\
             \x20 Federated Bundles:       2\n\
             \x20 SVID Chain:\n\
             \x20   [0] SPIFFE ID:  (none)\n\
             \x20       Subject:    O=SPIRE,C=US\n\
             \x20       Expires At: 1970-01-01T00:01:00Z\n"
        );
    }
}
