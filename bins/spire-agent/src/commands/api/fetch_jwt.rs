//! `api fetch jwt`

use std::fmt::Write as _;

use steeple_cli::{Api, ClientCommand, Failure, Output, Session, printer};
use steeple_config::{Flag, FlagSet};
use steeple_proto::workload::{JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse};

use super::client;

pub struct FetchJwt {
    audience: Flag<Vec<String>>,
    spiffe_id: Flag<String>,
    /// Older name of `-output`.
    format: Flag<Output>,
}

impl ClientCommand for FetchJwt {
    const NAME: &'static str = "fetch jwt";
    const API: Api = Api::Workload;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            audience: flags.csv("audience", "Audience the SVID is for; several are separated by commas"),
            spiffe_id: flags.string("spiffeID", "", "Only the SVID with this SPIFFE ID"),
            format: flags.value("format", "Older name of -output", None, Output::default(), |value, text| {
                *value = Output::parse(text)?;
                Ok(())
            }),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        if let Some(format) = self.format.get_if_set() {
            session.output = format;
        }
        let audience = self.audience.get();
        if audience.is_empty() {
            return Err(Failure::new("audience must be specified"));
        }
        let mut client = client(&session.channel);
        let request = session.workload_request(JwtBundlesRequest {});
        let bundles =
            session.within(async { client.fetch_jwt_bundles(request).await?.into_inner().message().await });
        let bundles = bundles.await?.ok_or_else(|| Failure::new("EOF"))?;
        let request = session.workload_request(JwtsvidRequest { audience, spiffe_id: self.spiffe_id.get() });
        let svids = session.within(client.fetch_jwtsvid(request)).await?.into_inner();
        match session.output {
            Output::Json => {
                let svids = printer::message("JWTSVIDResponse", &svids)?;
                session.print_json(vec![svids, printer::message("JWTBundlesResponse", &bundles)?])
            }
            Output::Pretty => session.io.print(&pretty(&svids, &bundles)),
        }
    }
}

fn pretty(svids: &JwtsvidResponse, bundles: &JwtBundlesResponse) -> String {
    let mut text = String::new();
    for svid in &svids.svids {
        let id = &svid.spiffe_id;
        let _ = write!(text, "token({id}):\n\t{}\n", svid.svid);
        if !svid.hint.is_empty() {
            let _ = write!(text, "hint({id}):\n\t{}\n", svid.hint);
        }
    }
    let mut bundles: Vec<_> = bundles.bundles.iter().collect();
    bundles.sort();
    for (trust_domain, jwks) in bundles {
        let _ = write!(text, "bundle({trust_domain}):\n\t{}\n", String::from_utf8_lossy(jwks));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeple_proto::workload::Jwtsvid;

    #[test]
    fn text() {
        let svid =
            |id: &str, hint: &str| Jwtsvid { spiffe_id: id.into(), svid: "x.y.z".into(), hint: hint.into() };
        let svids = JwtsvidResponse { svids: vec![svid("spiffe://td/a", "h"), svid("spiffe://td/b", "")] };
        let bundle = |td: &str| (td.to_owned(), b"{}".to_vec());
        let bundles =
            JwtBundlesResponse { bundles: [bundle("spiffe://td"), bundle("spiffe://other")].into() };
        assert_eq!(
            pretty(&svids, &bundles),
            "token(spiffe://td/a):\n\tx.y.z\nhint(spiffe://td/a):\n\th\ntoken(spiffe://td/b):\n\tx.y.z\n\
             bundle(spiffe://other):\n\t{}\nbundle(spiffe://td):\n\t{}\n"
        );
    }
}
