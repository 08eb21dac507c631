//! `-format pem|spiffe`: a bundle as text, and back.

use steeple_cli::gojson::{self, Object};
use steeple_cli::{Context as _, Failure};
use steeple_config::{Flag, FlagSet, go_quote};
use steeple_proto::spire::api::types;
use steeple_spiffe::bundle::{Bundle, JwtAuthority, X509Authority};
use steeple_spiffe::{Certificate, PublicKey, TrustDomain};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The X.509 authorities alone.
    Pem,
    /// The SPIFFE bundle document.
    Spiffe,
}

impl Form {
    pub fn flag(flags: &mut FlagSet) -> Flag<String> {
        flags.string("format", "pem", "Form of the bundle: pem (X.509 authorities) or spiffe (JWKS document)")
    }

    pub fn parse(text: &str) -> Result<Self, Failure> {
        match text.to_lowercase().as_str() {
            "" | "pem" => Ok(Self::Pem),
            "spiffe" => Ok(Self::Spiffe),
            other => Err(Failure::new(format!("invalid format: {}", go_quote(other)))),
        }
    }

    pub fn print(self, bundle: &types::Bundle) -> Result<String, Failure> {
        match self {
            Self::Pem => bundle
                .x509_authorities
                .iter()
                .map(|authority| {
                    let certificates = Certificate::many_from_der(&authority.asn1)
                        .context("unable to parse certificates ASN.1 DER data")?;
                    Ok(certificates.iter().map(Certificate::to_pem).collect::<String>())
                })
                .collect(),
            Self::Spiffe => {
                let document = from_message(bundle)?.to_spiffe_json();
                Ok(format!("{}\n", document.trim_end()))
            }
        }
    }

    /// The bundle of `trust_domain` that a file or stdin holds.
    pub fn read(self, trust_domain: &str, data: &[u8]) -> Result<types::Bundle, Failure> {
        let text = String::from_utf8_lossy(data);
        match self {
            Self::Pem => {
                let certificates = certificates(&text).context("unable to parse bundle data")?;
                Ok(types::Bundle {
                    trust_domain: trust_domain.to_owned(),
                    x509_authorities: certificates.iter().map(x509_authority).collect(),
                    ..Default::default()
                })
            }
            Self::Spiffe => {
                let trust_domain: TrustDomain = trust_domain.parse()?;
                let checked = gojson::parse(data)
                    .and_then(|json| Object::top(&json, "spiffebundle.bundleDoc").map(|_| json.is_null()));
                // To Go, null is a document without anything.
                let empty = checked
                    .context("unable to parse to spiffe bundle: spiffebundle: unable to parse JWKS")?;
                let bundle = Bundle::from_spiffe_json(trust_domain, if empty { "{}" } else { &text })
                    .context("unable to parse to spiffe bundle: spiffebundle")?;
                Ok(to_message(&bundle))
            }
        }
    }
}

/// The certificates of a PEM text. Whatever else it holds is an error; a block that is cut off is none.
fn certificates(text: &str) -> Result<Vec<Certificate>, Failure> {
    let (mut certificates, mut rest) = (Vec::new(), text);
    while let Some(begin) = rest.find("-----BEGIN ") {
        rest = &rest[begin..];
        let Some((label, _)) = rest["-----BEGIN ".len()..].split_once("-----") else { break };
        let end = format!("-----END {label}-----");
        let Some(end) = rest.find(&end).map(|at| at + end.len()) else { break };
        if label != "CERTIFICATE" {
            return Err(Failure::new(format!(
                "expected block type \"CERTIFICATE\"; got {}",
                go_quote(label)
            )));
        }
        let block = Certificate::from_pem(&rest[..end]);
        let number = certificates.len() + 1;
        certificates.extend(block.context(format!("unable to parse \"CERTIFICATE\" PEM block {number}"))?);
        rest = &rest[end..];
    }
    if certificates.is_empty() { Err(Failure::new("no PEM blocks")) } else { Ok(certificates) }
}

/// What stands above each bundle of a list.
pub fn header(trust_domain: &str) -> String {
    let stars = "*".repeat(40);
    format!("{stars}\n* {trust_domain}\n{stars}\n")
}

fn x509_authority(certificate: &Certificate) -> types::X509Certificate {
    types::X509Certificate { asn1: certificate.der().to_vec(), tainted: false }
}

fn to_message(bundle: &Bundle) -> types::Bundle {
    let jwt_authorities = bundle.jwt_authorities.iter().map(|jwt| types::JwtKey {
        public_key: jwt.public_key.spki_der().to_vec(),
        key_id: jwt.key_id.clone(),
        ..Default::default()
    });
    types::Bundle {
        trust_domain: bundle.trust_domain.name().to_owned(),
        x509_authorities: bundle
            .x509_authorities
            .iter()
            .map(|x509| x509_authority(&x509.certificate))
            .collect(),
        jwt_authorities: jwt_authorities.collect(),
        refresh_hint: bundle.refresh_hint.unwrap_or_default(),
        sequence_number: bundle.sequence_number,
        wit_authorities: Vec::new(),
    }
}

/// As SPIRE's commands: without WIT keys.
fn from_message(message: &types::Bundle) -> Result<Bundle, Failure> {
    let mut bundle = Bundle::new(message.trust_domain.parse::<TrustDomain>()?);
    for (i, authority) in message.x509_authorities.iter().enumerate() {
        let certificate =
            Certificate::from_der(&authority.asn1).context(format!("unable to parse root CA {i}"))?;
        bundle.x509_authorities.push(X509Authority { certificate, tainted: authority.tainted });
    }
    for jwt in &message.jwt_authorities {
        let public_key = PublicKey::from_spki_der(&jwt.public_key)
            .context(format!("unable to parse JWT authority {}", go_quote(&jwt.key_id)))?;
        bundle.jwt_authorities.push(JwtAuthority {
            key_id: jwt.key_id.clone(),
            public_key,
            expires_at: jwt.expires_at,
            tainted: jwt.tainted,
        });
    }
    bundle.refresh_hint = Some(message.refresh_hint).filter(|hint| *hint > 0);
    bundle.sequence_number = message.sequence_number;
    Ok(bundle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"keys":[{"use":"jwt-svid","kty":"EC","kid":"k1","crv":"P-256",
        "x":"fK-wKTnKL7KFLM27lqq5DC-bxrVaH6rDV-IcCSEOeL4","y":"wq-g3TQWxYlV51TCPH030yXsRxvujD4hUUaIQrXk4KI"}],
        "spiffe_sequence":3,"spiffe_refresh_hint":60}"#;

    #[test]
    fn forms() {
        assert_eq!(Form::parse(""), Ok(Form::Pem));
        assert_eq!(Form::parse("SPIFFE"), Ok(Form::Spiffe));
        assert_eq!(Form::parse("DER").unwrap_err().to_string(), "invalid format: \"der\"");
    }

    #[test]
    fn a_document_goes_in_and_comes_out() {
        let bundle = Form::Spiffe.read("spiffe://other.org", DOCUMENT.as_bytes()).unwrap();
        assert_eq!(
            (bundle.trust_domain.as_str(), bundle.refresh_hint, bundle.sequence_number),
            ("other.org", 60, 3)
        );
        let text = Form::Spiffe.print(&bundle).unwrap();
        assert!(
            text.starts_with("{\n    \"keys\": [\n        {\n            \"use\": \"jwt-svid\",\n"),
            "{text}"
        );
        assert!(
            text.ends_with("    \"spiffe_sequence\": 3,\n    \"spiffe_refresh_hint\": 60\n}\n"),
            "{text}"
        );
        assert_eq!(Form::Pem.print(&bundle).unwrap(), "");
    }

    #[test]
    fn what_is_no_bundle() {
        let error = |form: Form, data: &str| form.read("other.org", data.as_bytes()).unwrap_err().to_string();
        assert_eq!(error(Form::Pem, "nope"), "unable to parse bundle data: no PEM blocks");
        let cut_off = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert_eq!(error(Form::Pem, cut_off), "unable to parse bundle data: no PEM blocks");
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(
            error(Form::Pem, key),
            "unable to parse bundle data: expected block type \"CERTIFICATE\"; got \"PRIVATE KEY\""
        );
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let prefix = "unable to parse bundle data: unable to parse \"CERTIFICATE\" PEM block 1: malformed certificate: ";
        assert!(error(Form::Pem, broken).starts_with(prefix));
        assert_eq!(
            error(Form::Spiffe, "nope"),
            "unable to parse to spiffe bundle: spiffebundle: unable to parse JWKS: \
             invalid character 'o' in literal null (expecting 'u')"
        );
        assert_eq!(
            error(Form::Spiffe, "null"),
            "unable to parse to spiffe bundle: spiffebundle: no authorities found"
        );
        assert_eq!(
            error(Form::Spiffe, "[]"),
            "unable to parse to spiffe bundle: spiffebundle: unable to parse JWKS: \
             json: cannot unmarshal array into Go value of type spiffebundle.bundleDoc"
        );
    }
}
