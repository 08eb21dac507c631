//! What SPIRE 1.16 answers to good and bad requests on its Unix socket, one line each: method, request (`q`), code and
//! text of the call (`c`, `t`), code and text of each item (`i`). The lines of a file go to a fresh server in order; what
//! differs on purpose (docs/differences.md) is not among them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{Server, pool_key, server, td};

#[derive(serde::Deserialize)]
struct Line {
    m: String,
    q: serde_json::Value,
    c: i32,
    t: String,
    i: Vec<(i32, String)>,
}

#[tokio::test]
async fn entries() {
    replay(include_str!("recorded/entries.jsonl")).await;
}

#[tokio::test]
async fn federation_relationships() {
    replay(include_str!("recorded/federation.jsonl")).await;
}

#[tokio::test]
async fn bundles_agents_and_tokens() {
    replay(include_str!("recorded/bundles.jsonl")).await;
}

async fn replay(recorded: &str) {
    let server = server().await;
    let pool = DescriptorPool::decode(steeple_proto::FILE_DESCRIPTOR_SET).unwrap();
    let channel = server.local();
    let recorded = with_keys(&server, recorded).await;
    let mut wrong = Vec::new();
    for text in recorded.lines() {
        let line: Line = serde_json::from_str(text).unwrap();
        let (service, name) = line.m.split_once('/').unwrap();
        let Some(service) = pool.get_service_by_name(service) else { continue };
        let method = service.methods().find(|method| method.name() == name).unwrap();
        let outcome = call(&channel, &method, &line).await;
        let (code, message, items) = match outcome {
            Ok(answer) => (0, String::new(), statuses(&answer)),
            Err(status) => (status.code() as i32, status.message().to_owned(), Vec::new()),
        };
        if (code, &message, &items) != (line.c, &line.t, &line.i) {
            wrong.push(format!("{text}\n  {:?} {message:?} {items:?}", Code::from_i32(code)));
        }
    }
    assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// `$ROOT` stands for a certificate, `$KEY` for a public key.
async fn with_keys(server: &Server, recorded: &str) -> String {
    let bundle = server.state.store.fetch_bundle(&td()).await.unwrap().unwrap();
    let root = STANDARD.encode(bundle.x509_authorities[0].certificate.der());
    recorded.replace("$ROOT", &root).replace("$KEY", &STANDARD.encode(pool_key(0).public_key().spki_der()))
}

async fn call(channel: &Channel, method: &MethodDescriptor, line: &Line) -> Result<DynamicMessage, Status> {
    let request = DynamicMessage::deserialize(method.input(), &line.q).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::from_maybe_shared(format!("/{}", line.m)).unwrap();
    let answer = grpc.unary(tonic::Request::new(request.encode_to_vec()), path, Bytes).await?;
    Ok(DynamicMessage::decode(method.output(), answer.into_inner().as_slice()).unwrap())
}

/// Of a batch's `results`.
fn statuses(answer: &DynamicMessage) -> Vec<(i32, String)> {
    let answer = serde_json::to_value(answer).unwrap();
    let results = answer["results"].as_array().cloned().unwrap_or_default();
    let status = |result: &serde_json::Value| {
        let status = &result["status"];
        let code = status["code"].as_i64().unwrap_or(0);
        (i32::try_from(code).unwrap(), status["message"].as_str().unwrap_or_default().to_owned())
    };
    results.iter().map(status).collect()
}

/// Messages as they are on the wire.
#[derive(Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(into, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; bytes::Buf::remaining(from)];
        bytes::Buf::copy_to_slice(from, &mut item);
        Ok(Some(item))
    }
}
