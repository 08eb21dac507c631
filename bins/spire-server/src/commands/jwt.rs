//! `jwt mint`: a JWT-SVID outside any entry.

use steeple_cli::{Api, ClientCommand, Context as _, Failure, Session, files, go};
use steeple_config::{Flag, FlagSet, GoDuration};
use steeple_proto::spire::api::server::svid::v1::MintJwtsvidRequest;
use steeple_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use steeple_runtime::clock::{Clock as _, SystemClock};
use steeple_spiffe::jwt;

use super::args;
use super::x509::capped;

pub struct Mint {
    spiffe_id: Flag<String>,
    ttl: Flag<GoDuration>,
    audience: Flag<Vec<String>>,
    write: Flag<String>,
}

impl ClientCommand for Mint {
    const NAME: &'static str = "jwt mint";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            spiffe_id: flags.string("spiffeID", "", "SPIFFE ID of the SVID"),
            ttl: flags.duration("ttl", GoDuration::ZERO, "Lifetime of the SVID (0s: the server's default)"),
            audience: flags.strings("audience", "Audience the SVID is for; may be given again"),
            write: flags.string("write", "", "File to write the token into"),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let (spiffe_id, audience, ttl) = (self.spiffe_id.get(), self.audience.get(), self.ttl.get());
        if spiffe_id.is_empty() {
            return Err(Failure::new("spiffeID must be specified"));
        }
        if audience.is_empty() {
            return Err(Failure::new("at least one audience must be specified"));
        }
        let id = Some(args::spiffe_id(&spiffe_id)?);
        let request = MintJwtsvidRequest { id, audience, ttl: args::ttl_rounded_up(ttl)? };
        let mut client = SvidClient::new(session.channel.clone());
        let answer = client.mint_jwtsvid(request).await.context("unable to mint SVID")?.into_inner();
        let token = answer.svid.as_ref().map(|svid| svid.token.clone()).unwrap_or_default();
        if token.is_empty() {
            return Err(Failure::new("server response missing token"));
        }
        match jwt::parse_insecure(&token) {
            Ok(svid) => {
                if let Some(warning) = capped("JWT-SVID", svid.expires_at, ttl, SystemClock.now_nanos()) {
                    session.io.eprint(&warning);
                }
            }
            Err(why) => session.io.eprint(&format!("Unable to determine JWT-SVID lifetime: {why}\n")),
        }
        let path = self.write.get();
        if path.is_empty() {
            let name = "spire.api.server.svid.v1.MintJWTSVIDResponse";
            return session.answer(name, &answer, |_| Ok(format!("{token}\n")));
        }
        let path = go::clean(&path);
        files::write_private(&path, token.as_bytes()).context("unable to write token")?;
        session.io.print(&format!("JWT-SVID written to {path}\n"))
    }
}
