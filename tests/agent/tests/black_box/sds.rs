//! Envoy's secret discovery and the Delegated Identity API from clients that behave badly, and from many. What is refused
//! is refused as SPIRE does: the same table runs on its agent.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use steeple_e2e::{Deployment, Subject, connect_uds};
use steeple_proto::envoy::service::discovery::v3 as xds;
use steeple_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use steeple_proto::google::rpc::Status as RpcStatus;
use steeple_proto::spire::api::agent::delegatedidentity::v1 as api;
use steeple_proto::spire::api::agent::delegatedidentity::v1::delegated_identity_client::DelegatedIdentityClient;
use steeple_proto::steeple::server::v1::RotateEntriesRequest;
use steeple_proto::steeple::server::v1::rotation_client::RotationClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::envoy::cpu;
use crate::envoys::LONG;

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const ME: &str = "spiffe://example.org/me";

fn asks(names: &[&str]) -> xds::DiscoveryRequest {
    xds::DiscoveryRequest {
        resource_names: names.iter().map(ToString::to_string).collect(),
        type_url: SECRET.into(),
        ..xds::DiscoveryRequest::default()
    }
}

struct Stream {
    requests: mpsc::Sender<xds::DiscoveryRequest>,
    responses: Streaming<xds::DiscoveryResponse>,
}

impl Stream {
    async fn open(channel: &Channel, first: xds::DiscoveryRequest) -> Result<Self, Status> {
        let mut client = SecretDiscoveryServiceClient::new(channel.clone());
        let (requests, outgoing) = mpsc::channel(64);
        requests.try_send(first).map_err(|error| Status::internal(error.to_string()))?;
        let responses = client.stream_secrets(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    async fn hears(&mut self) -> Result<xds::DiscoveryResponse> {
        tokio::time::timeout(LONG, self.responses.message()).await??.context("it ended")
    }

    async fn accepts(&self, response: &xds::DiscoveryResponse, names: &[&str]) -> Result<()> {
        let nonce = response.nonce.clone();
        Ok(self.requests.send(xds::DiscoveryRequest { response_nonce: nonce, ..asks(names) }).await?)
    }
}

async fn with_me(options: &str) -> Result<(Deployment, Channel)> {
    let d = Deployment::builder().agent_options(options).start_with_agent()?;
    d.entry_for_me("me", "/me")?;
    d.eventually("the entry is served", LONG, || d.agent_api(&["api", "fetch", "x509"]).code == Some(0))?;
    let channel = connect_uds(&d.workload_socket()).await?;
    Ok((d, channel))
}

async fn rotate(d: &Deployment) -> Result<()> {
    let mut server = RotationClient::new(connect_uds(&d.server_socket()).await?);
    server.rotate_entries(RotateEntriesRequest { ids: vec!["me".into()] }).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_rejections_costs_little_and_hurts_nobody() -> Result<()> {
    const STORM: usize = 20_000;
    let (d, channel) = with_me("").await?;
    let mut quiet = Stream::open(&connect_uds(&d.workload_socket()).await?, asks(&[ME])).await?;
    let held = quiet.hears().await?;
    quiet.accepts(&held, &[ME]).await?;
    let mut angry = Stream::open(&channel, asks(&[ME])).await?;
    let mut newest = angry.hears().await?;
    let agent = d.agent.as_ref().context("started")?;
    let rss = agent.rss_kib().context("no RSS")?;
    let (before, started) = (cpu(Some(agent))?, Instant::now());
    let detail = RpcStatus { code: 13, message: "no such thing ".repeat(100), details: vec![] };
    for n in 0..STORM {
        // Some are of no response at all.
        let response_nonce = if n % 2 == 0 { newest.nonce.clone() } else { n.to_string() };
        let rejection =
            xds::DiscoveryRequest { response_nonce, error_detail: Some(detail.clone()), ..asks(&[ME]) };
        angry.requests.send(rejection).await?;
        if n == STORM / 2 && d.subject() == Subject::Steeple {
            rotate(&d).await?;
            ensure!(quiet.hears().await?.resources != held.resources, "the other stream is told meanwhile");
            newest = angry.hears().await?;
            ensure!(newest.version_info == "2", "only a change is told: {newest:?}");
        }
    }
    // Requests are taken in order: this one comes after the storm.
    angry.accepts(&newest, &[ME, "ROOTCA"]).await?;
    ensure!(angry.hears().await?.resources.len() == 2, "it is still served");
    let spent = cpu(Some(agent))?.saturating_sub(before);
    let grown = agent.rss_kib().context("no RSS")?.saturating_sub(rss);
    println!("{STORM} rejections: {:?}, the agent's CPU {spent:?}, {grown} KiB more", started.elapsed());
    if d.subject() == Subject::Steeple {
        let lines = agent.log().matches("Envoy reported errors applying secrets").count();
        ensure!(
            lines > 0 && lines as u64 <= 2 + started.elapsed().as_secs() / 10,
            "{lines} lines in the log"
        );
        ensure!(grown < 16 << 10, "{grown} KiB");
    }
    Ok(())
}

/// As a node of 500 Envoys: each asks by a stream of its own and is told of each change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_streams_are_told_of_a_change() -> Result<()> {
    const STREAMS: usize = 500;
    let (d, _) = with_me("").await?;
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        let channel = if n % 100 == 0 { Some(connect_uds(&d.workload_socket()).await?) } else { None };
        streams.push((channel, None));
        let at = n - n % 100;
        let channel = streams[at].0.clone().context("a hundred share one connection")?;
        let mut stream = Stream::open(&channel, asks(&["default"])).await?;
        let first = stream.hears().await?;
        stream.accepts(&first, &["default"]).await?;
        streams[n].1 = Some((stream, first));
    }
    if d.subject() == Subject::Spire {
        // Rotation on demand is Steeple's own.
        return Ok(());
    }
    rotate(&d).await?;
    for (_, stream) in &mut streams {
        let (stream, first) = stream.as_mut().context("open")?;
        ensure!(stream.hears().await?.resources != first.resources);
    }
    Ok(())
}

/// Bytes that are no message of the kind asked for: a text that is none.
#[derive(Clone, PartialEq, prost::Message)]
struct Garbage {
    #[prost(bytes = "vec", tag = "1")]
    first: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    third: Vec<u8>,
}

async fn garbage(channel: &Channel, path: &'static str) -> Result<Code> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let message = Garbage { first: vec![0xff], third: vec![0xff, 0xfe] };
    let codec = ProstCodec::<Garbage, Garbage>::default();
    let (sender, outgoing) = mpsc::channel(1);
    sender.send(message).await?;
    let request = Request::new(ReceiverStream::new(outgoing));
    let answer = grpc.streaming(request, PathAndQuery::from_static(path), codec);
    // The stream of requests stays open, as an Envoy's does; unary calls want its end.
    let unary = !path.ends_with("StreamSecrets");
    let held = if unary {
        drop(sender);
        None
    } else {
        Some(sender)
    };
    let answer = match tokio::time::timeout(LONG, answer).await? {
        Err(status) => Err(status),
        Ok(stream) => tokio::time::timeout(LONG, stream.into_inner().message()).await?,
    };
    drop(held);
    Ok(answer.map_or_else(|status| status.code(), |_| Code::Ok))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_malformed_is_refused_as_spire_does() -> Result<()> {
    let (d, channel) = with_me("authorized_delegates = [\"spiffe://example.org/me\"]").await?;
    let mut sds = SecretDiscoveryServiceClient::new(channel.clone());
    let unauthorized = "workload is not authorized for the requested identities";
    for (names, listed) in [
        (&["nobody"][..], "[\"nobody\"]"),
        (&[ME, "z", "a \"quoted\" one"][..], "[\"a \\\"quoted\\\" one\" \"z\"]"),
        (&["spiffe://unknown.test"][..], "[\"spiffe://unknown.test\"]"),
    ] {
        let wanted = (Code::InvalidArgument, format!("{unauthorized} {listed}"));
        let answer = sds.fetch_secrets(asks(names)).await.err().context("fetched")?;
        ensure!((answer.code(), answer.message().to_owned()) == wanted, "{answer:?}");
        let answer = match Stream::open(&channel, asks(names)).await {
            Err(status) => status,
            Ok(mut stream) => stream.responses.message().await.err().context("answered")?,
        };
        ensure!((answer.code(), answer.message().to_owned()) == wanted, "{answer:?}");
    }
    // No node, a foreign type, names twice, empty names: none of that matters.
    let odd = xds::DiscoveryRequest { type_url: "x".into(), ..asks(&[ME, ME]) };
    let answer = sds.fetch_secrets(odd).await?.into_inner();
    ensure!(answer.resources.len() == 1 && answer.type_url == "x", "{answer:?}");
    let everything = sds.fetch_secrets(asks(&[])).await?.into_inner();
    let kinds: BTreeSet<&str> = everything.resources.iter().map(|one| &*one.type_url).collect();
    ensure!(everything.resources.len() == 2 && kinds.len() == 1, "{everything:?}");

    let mut codes = Vec::new();
    for method in [
        "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets",
        "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
    ] {
        codes.push((method, garbage(&channel, method).await?));
    }
    let admin = connect_uds(&d.admin_socket()).await?;
    for method in [
        "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/SubscribeToX509SVIDs",
        "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/FetchJWTSVIDs",
    ] {
        codes.push((method, garbage(&admin, method).await?));
    }
    codes.push((
        "unknown",
        garbage(&admin, "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/No").await?,
    ));
    println!("{codes:?}");
    for (method, code) in &codes {
        let wanted = if *method == "unknown" { Code::Unimplemented } else { Code::Internal };
        ensure!(*code == wanted, "{method}: {code:?}");
    }
    // Who was refused may ask again, on the same connection.
    let mut delegated = DelegatedIdentityClient::new(admin);
    let bundles = delegated.subscribe_to_x509_bundles(api::SubscribeToX509BundlesRequest {}).await?;
    let first = tokio::time::timeout(Duration::from_mins(1), bundles.into_inner().message()).await??;
    ensure!(first.is_some_and(|first| first.ca_certificates.len() == 1));
    sds.fetch_secrets(asks(&["default"])).await?;
    Ok(())
}
