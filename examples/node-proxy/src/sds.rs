//! Envoy's side: SDS, state of the world. A name that is not there yet is sent once it is.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use prost_types::Any;
use steeple_proto::envoy::config::core::v3::TypedExtensionConfig;
use steeple_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use steeple_proto::envoy::service::discovery::v3 as xds;
use steeple_proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use crate::delegate::inline;

const TYPES: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.";

/// What is known now, by name.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<watch::Sender<BTreeMap<String, Any>>>);

impl Board {
    pub fn put(&self, name: &str, content: tls::secret::Type) {
        let secret = any("Secret", &tls::Secret { name: name.to_owned(), r#type: Some(content) });
        self.0.send_if_modified(|board| {
            board.insert(name.to_owned(), secret.clone()).as_ref() != Some(&secret)
        });
    }
}

fn any(kind: &str, message: &impl prost::Message) -> Any {
    Any { type_url: format!("{TYPES}{kind}"), value: message.encode_to_vec() }
}

/// Authorities by trust domain, for Envoy's SPIFFE validator.
pub(crate) fn trust<'a>(bundles: impl Iterator<Item = (&'a str, String)>) -> tls::secret::Type {
    let trust_domain = |(id, pem): (&str, String)| tls::spiffe_cert_validator_config::TrustDomain {
        name: id.trim_start_matches("spiffe://").to_owned(),
        trust_bundle: Some(inline(pem)),
    };
    let config = tls::SpiffeCertValidatorConfig { trust_domains: bundles.map(trust_domain).collect() };
    tls::secret::Type::ValidationContext(tls::CertificateValidationContext {
        custom_validator_config: Some(TypedExtensionConfig {
            name: "envoy.tls.cert_validator.spiffe".to_owned(),
            typed_config: Some(any("SPIFFECertValidatorConfig", &config)),
        }),
        ..tls::CertificateValidationContext::default()
    })
}

pub(crate) struct Secrets(pub Board);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One Envoy's stream.
struct Open {
    requests: Streaming<xds::DiscoveryRequest>,
    board: watch::Receiver<BTreeMap<String, Any>>,
    names: Vec<String>,
    sent: Vec<Any>,
    version: u64,
}

impl Open {
    /// The next response; `None` once the Envoy has gone.
    async fn next(&mut self) -> Result<Option<xds::DiscoveryResponse>, Status> {
        loop {
            tokio::select! {
                request = self.requests.message() => {
                    let Some(request) = request? else { return Ok(None) };
                    if let Some(error) = request.error_detail {
                        eprintln!("Envoy refuses {:?}: {}", request.resource_names, error.message);
                    }
                    self.names = request.resource_names;
                }
                changed = self.board.changed() => {
                    changed.map_err(|_| Status::unavailable("the delegate is stopping"))?;
                }
            }
            let board = self.board.borrow_and_update();
            let now: Vec<Any> = self.names.iter().filter_map(|name| board.get(name).cloned()).collect();
            drop(board);
            // An acknowledgement, a rejection or a change of something else calls for nothing.
            if !now.is_empty() && now != self.sent {
                self.version += 1;
                self.sent.clone_from(&now);
                return Ok(Some(xds::DiscoveryResponse {
                    version_info: self.version.to_string(),
                    nonce: self.version.to_string(),
                    type_url: format!("{TYPES}Secret"),
                    resources: now,
                    ..xds::DiscoveryResponse::default()
                }));
            }
        }
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Secrets {
    type StreamSecretsStream = Answers<xds::DiscoveryResponse>;
    type DeltaSecretsStream = Answers<xds::DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<xds::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let board = self.0.0.subscribe();
        let open = Open { requests: request.into_inner(), board, names: vec![], sent: vec![], version: 0 };
        let answers = stream::unfold(open, |mut open| async move {
            let answer = open.next().await.transpose()?;
            Some((answer, open))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn delta_secrets(
        &self,
        _: Request<Streaming<xds::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("only StreamSecrets is served: `api_type: GRPC`"))
    }

    async fn fetch_secrets(
        &self,
        _: Request<xds::DiscoveryRequest>,
    ) -> Result<Response<xds::DiscoveryResponse>, Status> {
        Err(Status::unimplemented("only StreamSecrets is served: `api_type: GRPC`"))
    }
}
