//! Where `federation create` and `federation update` take relationships from: flags, or a JSON file.

use serde_json::Value;
use steeple_cli::gojson::{self, Object};
use steeple_cli::{Context as _, Failure, Io};
use steeple_config::{Flag, FlagSet, go_quote};
use steeple_proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use steeple_proto::spire::api::types::{Bundle, FederationRelationship, HttpsWebProfile, HttpsspiffeProfile};
use steeple_spiffe::SpiffeId;

use crate::commands::bundle::Form;

/// The flags both commands have.
pub struct Input {
    data: Flag<String>,
    trust_domain: Flag<String>,
    url: Flag<String>,
    profile: Flag<String>,
    endpoint_id: Flag<String>,
    bundle_path: Flag<String>,
    bundle_format: Flag<String>,
}

const PEM: &str = "pem";
const SPIFFE: &str = "spiffe";

impl Input {
    pub fn new(flags: &mut FlagSet) -> Self {
        let about = "JSON file with relationships, - for stdin; the other flags are not used then";
        Self {
            data: flags.string("data", "", about),
            trust_domain: flags.string("trustDomain", "", "Trust domain to federate with"),
            url: flags.string("bundleEndpointURL", "", "HTTPS URL the trust domain's bundle is fetched from"),
            profile: flags.string("bundleEndpointProfile", "", "https_web or https_spiffe"),
            endpoint_id: flags.string(
                "endpointSpiffeID",
                "",
                "SPIFFE ID of the bundle endpoint's server, for https_spiffe",
            ),
            bundle_path: flags.string("trustDomainBundlePath", "", "File with the trust domain's bundle"),
            bundle_format: flags.string("trustDomainBundleFormat", PEM, "Form of that bundle: pem or spiffe"),
        }
    }

    pub fn relationships(&self, io: &mut Io) -> Result<Vec<FederationRelationship>, Failure> {
        let path = self.data.get();
        let flags = Raw {
            trust_domain: self.trust_domain.get(),
            url: self.url.get(),
            profile: self.profile.get(),
            endpoint_id: self.endpoint_id.get(),
            format: self.bundle_format.get(),
            bundle: None,
        };
        let bundle_path = self.bundle_path.get();
        if path.is_empty() {
            let file = (!bundle_path.is_empty()).then_some(bundle_path.as_str());
            return Ok(vec![flags.relationship(file)?]);
        }
        let none = Raw { format: PEM.to_owned(), ..Raw::default() };
        if flags != none || !bundle_path.is_empty() {
            return Err(Failure::new(
                "cannot use other flags to specify relationship fields when 'data' flag is set",
            ));
        }
        parse(&io.read(&path)?)
    }
}

/// `{"federationRelationships": [{"trustDomain": …, "bundleEndpointURL": …, …}]}`
fn parse(data: &[u8]) -> Result<Vec<FederationRelationship>, Failure> {
    let read = || -> Result<Vec<Raw>, Failure> {
        let value = gojson::parse(data)?;
        let file = Object::top(&value, "federation.federationRelationships")?;
        file.objects("federationRelationships", "federation.federationRelationshipConfig", |item| {
            item.map_or_else(|| Ok(Raw::default()), Raw::read)
        })
    };
    let items = read().context("failed to parse JSON")?;
    let items = items.into_iter().enumerate();
    items.map(|(i, item)| item.relationship(None).context(format!("could not parse item {i}"))).collect()
}

/// A relationship as it is written.
#[derive(Default, PartialEq)]
struct Raw {
    trust_domain: String,
    url: String,
    profile: String,
    endpoint_id: String,
    format: String,
    /// The bundle of a JSON file: a document, or PEM in a string.
    bundle: Option<Value>,
}

impl Raw {
    fn read(object: Object<'_>) -> Result<Self, Failure> {
        Ok(Self {
            trust_domain: object.string("trustDomain")?,
            url: object.string("bundleEndpointURL")?,
            profile: object.string("bundleEndpointProfile")?,
            endpoint_id: object.string("endpointSPIFFEID")?,
            format: object.string("trustDomainBundleFormat")?,
            bundle: object.raw("trustDomainBundle").cloned(),
        })
    }

    fn relationship(self, bundle_file: Option<&str>) -> Result<FederationRelationship, Failure> {
        if self.trust_domain.is_empty() {
            return Err(Failure::new("trust domain is required"));
        }
        if self.url.is_empty() {
            return Err(Failure::new("bundle endpoint URL is required"));
        }
        let mut bundle_of = self.trust_domain.clone();
        let profile = match self.profile.as_str() {
            "https_web" => BundleEndpointProfile::HttpsWeb(HttpsWebProfile {}),
            "https_spiffe" => {
                if self.endpoint_id.is_empty() {
                    return Err(Failure::new(
                        "endpoint SPIFFE ID is required if 'https_spiffe' endpoint profile is set",
                    ));
                }
                let id: SpiffeId =
                    self.endpoint_id.parse().context("cannot parse bundle endpoint SPIFFE ID")?;
                id.trust_domain().name().clone_into(&mut bundle_of);
                BundleEndpointProfile::HttpsSpiffe(HttpsspiffeProfile {
                    endpoint_spiffe_id: self.endpoint_id.clone(),
                })
            }
            other => {
                let other = go_quote(other);
                return Err(Failure::new(format!("unknown bundle endpoint profile type: {other}")));
            }
        };
        let trust_domain_bundle = match (bundle_file, &self.bundle) {
            (Some(path), _) => Some(read_bundle(path, &self.format, &bundle_of)?),
            (None, Some(raw)) => {
                let bundle = parse_bundle(raw, &self.format, &bundle_of);
                Some(bundle.context("cannot parse bundle raw message")?)
            }
            (None, None) => None,
        };
        Ok(FederationRelationship {
            trust_domain: self.trust_domain,
            bundle_endpoint_url: self.url,
            bundle_endpoint_profile: Some(profile),
            trust_domain_bundle,
        })
    }
}

fn read_bundle(path: &str, format: &str, trust_domain: &str) -> Result<Bundle, Failure> {
    let data = steeple_cli::files::read(path).context("cannot read bundle file")?;
    // SPIRE takes every other word for spiffe.
    let form = if format == PEM { Form::Pem } else { Form::Spiffe };
    form.read(trust_domain, &data).context("cannot parse bundle file")
}

fn parse_bundle(raw: &Value, format: &str, trust_domain: &str) -> Result<Bundle, Failure> {
    match format {
        PEM => match raw {
            Value::String(text) => Form::Pem.read(trust_domain, text.as_bytes()),
            Value::Null => Form::Pem.read(trust_domain, b""),
            other => {
                let kind = gojson::kind(other);
                Err(Failure::new(format!(
                    "failed to unmarshal json: json: cannot unmarshal {kind} into Go value of type string"
                )))
            }
        },
        SPIFFE => Form::Spiffe.read(trust_domain, raw.to_string().as_bytes()),
        other => Err(Failure::new(format!("bundle format {} is unsupported", go_quote(other)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Result<Vec<FederationRelationship>, String> {
        let mut flags = FlagSet::new("federation create");
        let input = Input::new(&mut flags);
        flags.parse(args).unwrap();
        let mut io = Io::new(std::io::empty(), std::io::sink(), std::io::sink());
        input.relationships(&mut io).map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_flags_must_say() {
        for (args, message) in [
            (&[][..], "trust domain is required"),
            (&["-trustDomain", "td"], "bundle endpoint URL is required"),
            (
                &["-trustDomain", "td", "-bundleEndpointURL", "u"],
                "unknown bundle endpoint profile type: \"\"",
            ),
            (
                &["-trustDomain", "td", "-bundleEndpointURL", "u", "-bundleEndpointProfile", "https_spiffe"],
                "endpoint SPIFFE ID is required if 'https_spiffe' endpoint profile is set",
            ),
            (
                &["-data", "x", "-trustDomain", "td"],
                "cannot use other flags to specify relationship fields when 'data' flag is set",
            ),
            (
                &["-data", "x", "-trustDomainBundleFormat", "spiffe"],
                "cannot use other flags to specify relationship fields when 'data' flag is set",
            ),
            (&["-data", "/nonexistent"], "open /nonexistent: no such file or directory"),
        ] {
            assert_eq!(flags(args).unwrap_err(), message, "{args:?}");
        }
    }

    #[test]
    fn a_file() {
        let error = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error("nope").starts_with("failed to parse JSON: invalid character"));
        assert_eq!(
            error(r#"{"federationRelationships":[{}]}"#),
            "could not parse item 0: trust domain is required"
        );
        let with = |rest: &str| {
            format!(
                r#"{{"federationRelationships":[{{"trustDomain":"td","bundleEndpointURL":"https://u",
                "bundleEndpointProfile":"https_spiffe","endpointSPIFFEID":"spiffe://other/e"{rest}}}]}}"#
            )
        };
        let found = parse(with("").as_bytes()).unwrap();
        assert_eq!(found[0].trust_domain, "td");
        assert!(found[0].trust_domain_bundle.is_none());
        assert_eq!(
            error(&with(r#","trustDomainBundle":"x""#)),
            "could not parse item 0: cannot parse bundle raw message: bundle format \"\" is unsupported"
        );
        let document = r#","trustDomainBundle":{"keys":[]},"trustDomainBundleFormat":"spiffe""#;
        let found = parse(with(document).as_bytes()).unwrap();
        // The bundle is the endpoint's, as SPIRE has it.
        assert_eq!(found[0].trust_domain_bundle.as_ref().unwrap().trust_domain, "other");
    }
}
