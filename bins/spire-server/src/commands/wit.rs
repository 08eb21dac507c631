//! `wit mint`: a WIT-SVID outside any entry. The format is a draft: the command is there if SPIRE_SERVER_FFLAGS names
//! `wit-svid` (SPIRE).

use steeple_cli::{Api, ClientCommand, Context as _, Failure, Output, Session, files, go};
use steeple_config::{Flag, FlagSet, GoDuration};
use steeple_proto::spire::api::server::svid::v1::MintWitsvidRequest;
use steeple_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use steeple_proto::spire::api::types::Witsvid;
use steeple_runtime::clock::{Clock as _, SystemClock};
use steeple_spiffe::{KeyType, PrivateKey};

use super::args;
use super::x509::capped;

/// Whether the feature is on.
pub fn enabled() -> bool {
    named(&std::env::var("SPIRE_SERVER_FFLAGS").unwrap_or_default())
}

fn named(flags: &str) -> bool {
    flags.split(' ').any(|flag| flag == "wit-svid")
}

pub struct Mint {
    spiffe_id: Flag<String>,
    key_type: Flag<String>,
    algorithm: Flag<String>,
    ttl: Flag<GoDuration>,
    write: Flag<String>,
}

impl ClientCommand for Mint {
    const NAME: &'static str = "wit mint";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            spiffe_id: flags.string("spiffeID", "", "SPIFFE ID of the SVID"),
            key_type: flags.string("keyType", "ec-p256", "Type of the workload's key"),
            algorithm: flags.string("signingAlgorithm", "ES256", "What the workload signs with"),
            ttl: flags.duration("ttl", GoDuration::ZERO, "Lifetime of the SVID (0s: the server's default)"),
            write: flags.string("write", "", "Directory to write token and key into"),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let (spiffe_id, ttl, signing_algorithm) =
            (self.spiffe_id.get(), self.ttl.get(), self.algorithm.get());
        if spiffe_id.is_empty() {
            return Err(Failure::new("spiffeID must be specified"));
        }
        let id = Some(args::spiffe_id(&spiffe_id)?);
        let seconds = args::ttl_rounded_up(ttl)?;
        let key = PrivateKey::generate(key_type(&self.key_type.get(), &signing_algorithm)?)
            .context("could not generate public/private key pair")?;
        let public_key = key.public_key().spki_der().to_vec();
        let request = MintWitsvidRequest { id, public_key, ttl: seconds, signing_algorithm };
        let answer = SvidClient::new(session.channel.clone()).mint_witsvid(request).await;
        let svid = answer.context("unable to mint SVID")?.into_inner().svid.unwrap_or_default();
        if svid.token.is_empty() {
            return Err(Failure::new("server response missing token"));
        }
        if let Some(warning) = capped("WIT-SVID", svid.expires_at, ttl, SystemClock.now_nanos()) {
            session.io.eprint(&warning);
        }
        let jwk = key.to_jwk().context("could not marshal private key")?;
        let directory = self.write.get();
        if !directory.is_empty() {
            let (token, key) = (go::join(&directory, "token"), go::join(&directory, "key"));
            files::write_private(&token, svid.token.as_bytes()).context("unable to write token")?;
            session.io.print(&format!("WIT-SVID written to {token}\n"))?;
            files::write_private(&key, jwk.as_bytes()).context("unable to write key")?;
            return session.io.print(&format!("Private key written to {key}\n"));
        }
        let text = match session.output {
            Output::Json => json(&jwk, &svid),
            Output::Pretty => format!("{}\n{}\n", svid.token, *jwk),
        };
        session.io.print(&text)
    }
}

/// The key that goes with a signing algorithm.
fn key_type(key_type: &str, algorithm: &str) -> Result<KeyType, Failure> {
    match (algorithm, key_type) {
        ("ES256", "ec-p256") => Ok(KeyType::EcP256),
        ("ES384", "ec-p384") => Ok(KeyType::EcP384),
        ("ES256" | "ES384", _) => Err(Failure::new(format!(
            "unsupported key type '{key_type}' for '{algorithm}' signing algorithm"
        ))),
        ("RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512", _) => match key_type {
            "rsa-2048" => Ok(KeyType::Rsa2048),
            "rsa-4096" => Ok(KeyType::Rsa4096),
            _ => Err(Failure::new(format!(
                "unsupported key type '{key_type}' for signing algorithm '{algorithm}'"
            ))),
        },
        _ => Err(Failure::new(format!("unsupported signing algorithm: {algorithm}"))),
    }
}

/// As Go writes the two: the fields in this order, numbers as numbers, nothing that is zero.
fn json(jwk: &str, svid: &Witsvid) -> String {
    let mut fields = Vec::new();
    let text = |value: &str| {
        let mut out = String::new();
        go::json_string(value, true, &mut out);
        out
    };
    fields.push(format!("\"token\":{}", text(&svid.token)));
    if let Some(id) = &svid.id {
        let path = if id.path.is_empty() { String::new() } else { format!(",\"path\":{}", text(&id.path)) };
        fields.push(format!("\"id\":{{\"trust_domain\":{}{path}}}", text(&id.trust_domain)));
    }
    for (name, value) in [("expires_at", svid.expires_at), ("issued_at", svid.issued_at)] {
        if value != 0 {
            fields.push(format!("\"{name}\":{value}"));
        }
    }
    if !svid.hint.is_empty() {
        fields.push(format!("\"hint\":{}", text(&svid.hint)));
    }
    format!("{{\"private_key\":{},\"svid\":{{{}}}}}\n", text(jwk), fields.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_stands_between_spaces() {
        assert!(named("wit-svid") && named("a wit-svid b"));
        assert!(!named("") && !named("wit-svids") && !named("a,wit-svid"));
    }

    #[test]
    fn keys_go_with_algorithms() {
        assert_eq!(key_type("ec-p384", "ES384"), Ok(KeyType::EcP384));
        assert_eq!(key_type("rsa-2048", "PS512"), Ok(KeyType::Rsa2048));
        let error = |key, algorithm| key_type(key, algorithm).unwrap_err().to_string();
        assert_eq!(error("ec-p256", "ES384"), "unsupported key type 'ec-p256' for 'ES384' signing algorithm");
        assert_eq!(error("ec-p256", "RS256"), "unsupported key type 'ec-p256' for signing algorithm 'RS256'");
        assert_eq!(error("ec-p256", "none"), "unsupported signing algorithm: none");
    }
}
