//! `debug getinfo`: the agent at a glance.

use steeple_cli::debug::Glance;
use steeple_cli::{Api, ClientCommand, Failure, Session, go};
use steeple_config::FlagSet;
use steeple_proto::spire::agent::debug::v1::debug_client::DebugClient;
use steeple_proto::spire::agent::debug::v1::{GetInfoRequest, GetInfoResponse};

pub struct GetInfo;

impl ClientCommand for GetInfo {
    const NAME: &'static str = "debug getinfo";
    const API: Api = Api::AgentAdmin;

    fn flags(_: &mut FlagSet) -> Self {
        Self
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let info = DebugClient::new(session.channel.clone()).get_info(GetInfoRequest {}).await?.into_inner();
        session.answer("spire.agent.debug.v1.GetInfoResponse", &info, |info| Ok(pretty(info)))
    }
}

fn pretty(info: &GetInfoResponse) -> String {
    let mut text = Glance::new("Agent", 33);
    let synced =
        if info.last_sync_success == 0 { "(never)".into() } else { go::rfc3339_utc(info.last_sync_success) };
    text.line("Uptime:", go::seconds(i64::from(info.uptime)));
    text.line("Last Sync Success:", synced);
    text.line("Cached X.509 SVIDs:", info.cached_x509_svids_count);
    text.line("Cached JWT SVIDs:", info.cached_jwt_svids_count);
    text.line("Cached SVID Store X.509 SVIDs:", info.cached_svidstore_x509_svids_count);
    for certificate in &info.svid_chain {
        let id = certificate.id.as_ref().map(|id| format!("spiffe://{}{}", id.trust_domain, id.path));
        text.certificate(id.as_deref(), &certificate.subject, certificate.expires_at);
    }
    text.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeple_proto::spire::agent::debug::v1::get_info_response::Cert;

    #[test]
    fn text() {
        let info = GetInfoResponse {
            svid_chain: vec![Cert { id: None, expires_at: 60, subject: "O=SPIRE,C=US".into() }],
            uptime: 61,
            cached_x509_svids_count: 1,
            cached_jwt_svids_count: 2,
            cached_svidstore_x509_svids_count: 3,
            ..Default::default()
        };
        assert_eq!(
            pretty(&info),
            "Agent Debug Info:\n\
             \x20 Uptime:                          1m1s\n\
             \x20 Last Sync Success:               (never)\n\
             \x20 Cached X.509 SVIDs:              1\n\
             \x20 Cached JWT SVIDs:                2\n\
             \x20 Cached SVID Store X.509 SVIDs:   3\n\
             \x20 SVID Chain:\n\
             \x20   [0] SPIFFE ID:  (none)\n\
             \x20       Subject:    O=SPIRE,C=US\n\
             \x20       Expires At: 1970-01-01T00:01:00Z\n"
        );
    }
}
