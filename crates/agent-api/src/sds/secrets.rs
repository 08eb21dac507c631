//! SVIDs and bundles as Envoy's secrets.

use prost_types::Any;
use steeple_agent_core::cache::{Content, Identity};
use steeple_proto::envoy::config::core::v3 as core;
use steeple_proto::envoy::config::core::v3::data_source::Specifier;
use steeple_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use steeple_spiffe::{Bundle, Certificate, PrivateKey};
use tonic::Status;

use super::{Names, SdsNames};

/// What one workload may ask for at one moment.
pub(super) struct Secrets<'a> {
    content: &'a Content,
    names: &'a SdsNames,
    validator: bool,
}

/// What a name stands for.
#[derive(Clone, Copy)]
enum Found<'a> {
    Svid(&'a Identity),
    Bundle(&'a Bundle),
    AllBundles,
}

/// A secret and the name it goes by.
pub(super) type Named = (String, Any);

const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";

impl<'a> Secrets<'a> {
    pub fn new(content: &'a Content, names: &'a SdsNames, validator: bool) -> Self {
        Self { content, names, validator }
    }

    pub fn has_all(&self, names: &Names) -> bool {
        names.iter().all(|name| self.find(name).is_some())
    }

    /// Everything that was asked for, or SPIRE's refusal that names what is not there.
    pub fn all_of(&self, names: &Names) -> Result<Vec<Named>, Status> {
        let missing: Vec<&str> = names.iter().filter(|name| self.find(name).is_none()).collect();
        if !missing.is_empty() {
            let missing: Vec<String> = missing.iter().map(|name| format!("{name:?}")).collect();
            return Err(Status::invalid_argument(format!(
                "workload is not authorized for the requested identities [{}]",
                missing.join(" ")
            )));
        }
        self.some_of(names)
    }

    /// What there is of what was asked for.
    pub fn some_of(&self, names: &Names) -> Result<Vec<Named>, Status> {
        let full_names;
        let wanted: Vec<&str> = if names.is_everything() {
            full_names = self.full_names();
            full_names.iter().map(String::as_str).collect()
        } else {
            names.iter().collect()
        };
        let found = wanted.into_iter().filter_map(|name| self.find(name).map(|found| (name, found)));
        found.map(|(name, found)| Ok((name.to_owned(), self.secret(name, found)?))).collect()
    }

    /// Bundles first, no aliases.
    fn full_names(&self) -> Vec<String> {
        let bundles = self.content.bundle.iter().chain(&self.content.federated);
        let mut names: Vec<String> =
            bundles.map(|bundle| bundle.trust_domain.as_id_str().to_owned()).collect();
        for identity in &self.content.identities {
            let name = identity.entry.spiffe_id.to_string();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Full names before aliases, so that no alias hides one.
    fn find(&self, name: &str) -> Option<Found<'a>> {
        let content = self.content;
        let by_id = |bundle: &&'a Bundle| bundle.trust_domain.as_id_str() == name;
        let own = content.bundle.as_deref();
        let federated = content.federated.iter().map(AsRef::as_ref);
        if let Some(bundle) = own.into_iter().chain(federated).find(by_id) {
            return Some(Found::Bundle(bundle));
        }
        let identities = &content.identities;
        if let Some(identity) = identities.iter().find(|one| one.entry.spiffe_id.as_str() == name) {
            return Some(Found::Svid(identity));
        }
        if name == self.names.default_svid {
            return identities.first().map(Found::Svid);
        }
        if name == self.names.default_bundle {
            return own.map(Found::Bundle);
        }
        (name == self.names.default_all_bundles && own.is_some()).then_some(Found::AllBundles)
    }

    fn secret(&self, name: &str, found: Found<'_>) -> Result<Any, Status> {
        let secret = match found {
            Found::Svid(identity) => tls::secret::Type::TlsCertificate(certificate(identity)?),
            Found::Bundle(bundle) => tls::secret::Type::ValidationContext(self.trust([bundle])),
            Found::AllBundles if !self.validator => {
                return Err(Status::internal(
                    "unable to use all bundles without the SPIFFE validator: it is switched off by the agent's \
                     sds block or the Envoy node's metadata, or the Envoy is older than 1.18",
                ));
            }
            Found::AllBundles => {
                let own = self.content.bundle.as_deref();
                let all = own.into_iter().chain(self.content.federated.iter().map(AsRef::as_ref));
                tls::secret::Type::ValidationContext(self.trust(all))
            }
        };
        Ok(any("Secret", &tls::Secret { name: name.to_owned(), r#type: Some(secret) }))
    }

    fn trust<'b>(&self, bundles: impl IntoIterator<Item = &'b Bundle>) -> tls::CertificateValidationContext {
        if !self.validator {
            let pem: String = bundles.into_iter().map(Bundle::to_pem).collect();
            let trusted_ca = Some(inline(pem.into_bytes()));
            return tls::CertificateValidationContext { trusted_ca, ..Default::default() };
        }
        let trust_domain = |bundle: &Bundle| tls::spiffe_cert_validator_config::TrustDomain {
            name: bundle.trust_domain.name().to_owned(),
            trust_bundle: Some(inline(bundle.to_pem().into_bytes())),
        };
        let mut trust_domains: Vec<_> = bundles.into_iter().map(trust_domain).collect();
        trust_domains.sort_by(|a, b| a.name.cmp(&b.name));
        tls::CertificateValidationContext {
            custom_validator_config: Some(core::TypedExtensionConfig {
                name: VALIDATOR.to_owned(),
                typed_config: Some(any(
                    "SPIFFECertValidatorConfig",
                    &tls::SpiffeCertValidatorConfig { trust_domains },
                )),
            }),
            ..Default::default()
        }
    }
}

fn certificate(identity: &Identity) -> Result<tls::TlsCertificate, Status> {
    let unreadable = |error| Status::internal(format!("SVID cannot be encoded: {error}"));
    let chain = Certificate::many_to_pem(&identity.svid.chain).map_err(unreadable)?;
    let key = PrivateKey::pkcs8_pem(&identity.svid.key);
    Ok(tls::TlsCertificate {
        certificate_chain: Some(inline(chain.into_bytes())),
        private_key: Some(inline(key.as_bytes().to_vec())),
    })
}

fn inline(bytes: Vec<u8>) -> core::DataSource {
    core::DataSource { specifier: Some(Specifier::InlineBytes(bytes)) }
}

fn any(type_name: &str, message: &impl prost::Message) -> Any {
    let type_url = format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{type_name}");
    Any { type_url, value: message.encode_to_vec() }
}
