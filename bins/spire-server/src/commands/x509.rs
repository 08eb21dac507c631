//! `x509 mint`: an X.509-SVID outside any entry.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use steeple_cli::{Api, ClientCommand, Context as _, Failure, Output, Session, files, go};
use steeple_config::{Flag, FlagSet, GoDuration, go_quote};
use steeple_proto::spire::api::server::bundle::v1::GetBundleRequest;
use steeple_proto::spire::api::server::svid::v1::MintX509svidRequest;
use steeple_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use steeple_runtime::clock::{Clock as _, SystemClock};
use steeple_spiffe::x509::{self, DistinguishedName};
use steeple_spiffe::{Certificate, KeyType, PrivateKey, SpiffeId};

use super::{args, bundle};

pub struct Mint {
    spiffe_id: Flag<String>,
    ttl: Flag<GoDuration>,
    dns_names: Flag<Vec<String>>,
    write: Flag<String>,
}

impl ClientCommand for Mint {
    const NAME: &'static str = "x509 mint";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            spiffe_id: flags.string("spiffeID", "", "SPIFFE ID of the SVID"),
            ttl: flags.duration("ttl", GoDuration::ZERO, "Lifetime of the SVID (0s: the server's default)"),
            dns_names: flags.strings("dns", "DNS name for the SVID; may be given again"),
            write: flags.string("write", "", "Directory to write svid.pem, key.pem and bundle.pem into"),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let (spiffe_id, ttl) = (self.spiffe_id.get(), self.ttl.get());
        if spiffe_id.is_empty() {
            return Err(Failure::new("spiffeID must be specified"));
        }
        let spiffe_id: SpiffeId = spiffe_id.parse()?;
        let seconds = args::ttl_rounded_up(ttl)?;
        let key = PrivateKey::generate(KeyType::EcP256).context("unable to generate key")?;
        let csr = self.request(&spiffe_id, &key).context("unable to generate CSR")?;
        let request = MintX509svidRequest { csr, ttl: seconds };
        let mut client = SvidClient::new(session.channel.clone());
        let svid = client.mint_x509svid(request).await.context("unable to mint SVID")?.into_inner().svid;
        let svid = svid.filter(|svid| !svid.cert_chain.is_empty());
        let svid = svid.ok_or_else(|| Failure::new("server response missing SVID chain"))?;
        let bundle = bundle::client(&session.channel).get_bundle(GetBundleRequest::default()).await;
        let authorities = bundle.context("unable to get bundle")?.into_inner().x509_authorities;
        if authorities.is_empty() {
            return Err(Failure::new("server response missing X509 Authorities"));
        }
        if let Some(warning) = capped("X509-SVID", svid.expires_at, ttl, SystemClock.now_nanos()) {
            session.io.eprint(&warning);
        }
        let minted = Minted {
            chain: svid.cert_chain,
            key,
            authorities: authorities.into_iter().map(|authority| authority.asn1).collect(),
        };
        let directory = self.write.get();
        if !directory.is_empty() {
            return minted.write(session, &directory);
        }
        let text = match session.output {
            Output::Json => minted.json()?,
            Output::Pretty => minted.pretty()?,
        };
        session.io.print(&text)
    }
}

impl Mint {
    fn request(&self, id: &SpiffeId, key: &PrivateKey) -> Result<Vec<u8>, Failure> {
        let subject = DistinguishedName::default();
        let tbs = x509::csr_tbs(&subject, &key.public_key(), &[id.as_str()], &self.dns_names.get());
        let algorithm = key.key_type().x509_signature_algorithm();
        Ok(x509::assemble(&tbs, algorithm, &key.sign(algorithm, &tbs)?))
    }
}

/// A warning when the server gave less than was asked for.
pub(super) fn capped(what: &str, expires_at: i64, ttl: GoDuration, now_nanos: i128) -> Option<String> {
    const SECOND: i128 = 1_000_000_000;
    let left = i128::from(expires_at) * SECOND - now_nanos;
    (left < i128::from(ttl.nanos())).then(|| {
        let expires = go_quote(&go::rfc3339_utc(expires_at));
        format!("{what} lifetime was capped shorter than specified ttl; expires {expires}\n")
    })
}

struct Minted {
    chain: Vec<Vec<u8>>,
    key: PrivateKey,
    authorities: Vec<Vec<u8>>,
}

impl Minted {
    fn pretty(&self) -> Result<String, Failure> {
        let (svid, key, roots) = (pem(&self.chain)?, self.key.to_pem()?, pem(&self.authorities)?);
        Ok(format!("X509-SVID:\n{svid}\nPrivate key:\n{}\nRoot CAs:\n{roots}\n", *key))
    }

    /// In this order, which is not the alphabet's.
    fn json(&self) -> Result<String, Failure> {
        let list = |ders: &[Vec<u8>]| {
            let items: Vec<String> = ders.iter().map(|der| format!("\"{}\"", STANDARD.encode(der))).collect();
            items.join(",")
        };
        let (chain, key) = (list(&self.chain), STANDARD.encode(&*self.key.pkcs8_der()?));
        let roots = list(&self.authorities);
        Ok(format!("{{\"x509_svid\":[{chain}],\"private_key\":\"{key}\",\"root_cas\":[{roots}]}}\n"))
    }

    fn write(&self, session: &mut Session, directory: &str) -> Result<(), Failure> {
        let path = |name: &str| go::join(directory, name);
        let (svid, key, roots) = (path("svid.pem"), path("key.pem"), path("bundle.pem"));
        files::write_public(&svid, pem(&self.chain)?.as_bytes()).context("unable to write SVID")?;
        session.io.print(&format!("X509-SVID written to {svid}\n"))?;
        files::write_private(&key, self.key.to_pem()?.as_bytes()).context("unable to write key")?;
        session.io.print(&format!("Private key written to {key}\n"))?;
        files::write_public(&roots, pem(&self.authorities)?.as_bytes()).context("unable to write bundle")?;
        session.io.print(&format!("Root CAs written to {roots}\n"))
    }
}

fn pem(certificates: &[Vec<u8>]) -> Result<String, Failure> {
    certificates.iter().map(|der| Ok(Certificate::from_der(der)?.to_pem())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_life_is_told() {
        let ttl = |text: &str| text.parse::<GoDuration>().unwrap();
        let now = 1_000 * 1_000_000_000 + 1;
        assert_eq!(capped("X509-SVID", 1_061, ttl("1m"), now), None);
        assert_eq!(
            capped("X509-SVID", 1_060, ttl("1m"), now).as_deref(),
            Some(
                "X509-SVID lifetime was capped shorter than specified ttl; expires \"1970-01-01T00:17:40Z\"\n"
            )
        );
        assert_eq!(capped("X509-SVID", 1_060, GoDuration::ZERO, now), None);
    }

    #[test]
    fn the_request_carries_id_and_names() {
        let mut flags = FlagSet::new(Mint::NAME);
        let mint = Mint::flags(&mut flags);
        flags.parse(&["-dns", "a.b", "-dns", "c.d"]).unwrap();
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let der = mint.request(&"spiffe://td/w".parse().unwrap(), &key).unwrap();
        let csr = x509::CertificateRequest::from_der(&der).unwrap();
        csr.verify_signature().unwrap();
        assert_eq!(csr.uri_sans(), ["spiffe://td/w"]);
        assert_eq!(csr.dns_names(), ["a.b", "c.d"]);
    }
}
