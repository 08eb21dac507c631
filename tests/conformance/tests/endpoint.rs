//! SPIFFE_Workload_Endpoint.md.
#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

use std::os::unix::fs::FileTypeExt;

use anyhow::{Context, Result};
use steeple_conformance::{entitled, entry_for_me, next, refusal, stranger, x509};
use steeple_e2e::{Deployment, Workload, connect_uds};
use steeple_proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest,
    X509BundlesRequest, X509svidRequest,
};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// The codes of all seven RPCs under this metadata.
async fn codes(w: &mut Workload, metadata: &MetadataMap) -> Vec<(&'static str, Code)> {
    fn with<T>(message: T, metadata: &MetadataMap) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = metadata.clone();
        request
    }
    async fn of<T>(opened: Result<tonic::Response<tonic::Streaming<T>>, tonic::Status>) -> Code {
        refusal(opened).await.map_or(Code::Ok, |status| status.code())
    }
    let jwt = JwtsvidRequest { audience: vec!["a".into()], spiffe_id: String::new() };
    let validate = ValidateJwtsvidRequest { audience: "a".into(), svid: "b".into() };
    vec![
        ("FetchX509SVID", of(w.api.fetch_x509svid(with(X509svidRequest {}, metadata)).await).await),
        ("FetchX509Bundles", of(w.api.fetch_x509_bundles(with(X509BundlesRequest {}, metadata)).await).await),
        (
            "FetchJWTSVID",
            w.api.fetch_jwtsvid(with(jwt, metadata)).await.map_or_else(|s| s.code(), |_| Code::Ok),
        ),
        ("FetchJWTBundles", of(w.api.fetch_jwt_bundles(with(JwtBundlesRequest {}, metadata)).await).await),
        (
            "ValidateJWTSVID",
            w.api.validate_jwtsvid(with(validate, metadata)).await.map_or_else(|s| s.code(), |_| Code::Ok),
        ),
        ("FetchWITSVID", of(w.api.fetch_witsvid(with(WitsvidRequest::default(), metadata)).await).await),
        ("FetchWITBundles", of(w.api.fetch_wit_bundles(with(WitBundlesRequest {}, metadata)).await).await),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_01_exposed_through_a_local_endpoint() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    assert!(std::fs::metadata(d.workload_socket())?.file_type().is_socket());
    // Nothing of the agent listens on TCP.
    let agent = d.agent.as_ref().context("no agent")?.pid();
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{agent}/fd"))?
        .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let listening = std::fs::read_to_string(table).unwrap_or_default();
        for line in listening.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A")) {
            let inode = line.split_whitespace().nth(9).unwrap_or_default();
            assert!(!inodes.iter().any(|of_agent| of_agent == inode), "{line}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_03_speaks_grpc() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    next(&mut x509(&mut w).await?).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_04_any_user_may_connect_to_the_unix_socket() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let d = Deployment::builder().start_with_agent()?;
    let mode = std::fs::metadata(d.workload_socket())?.permissions().mode();
    assert_eq!(mode & 0o666, 0o666, "{mode:o}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_07_only_exactly_that_header_is_accepted() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    for value in [None, Some("True"), Some("TRUE"), Some("1"), Some(""), Some("false"), Some("true ,true")] {
        let mut metadata = MetadataMap::new();
        if let Some(value) = value {
            metadata.insert("workload.spiffe.io", MetadataValue::from_static(value));
        }
        for (rpc, code) in codes(&mut w, &metadata).await {
            // An RPC that is not served says so whatever the header is (WA-60).
            let unserved = rpc.contains("WIT") && code == Code::Unimplemented;
            assert!(code == Code::InvalidArgument || unserved, "{rpc} with {value:?}: {code:?}");
        }
    }
    let mut twice = MetadataMap::new();
    twice.append("workload.spiffe.io", MetadataValue::from_static("true"));
    twice.append("workload.spiffe.io", MetadataValue::from_static("true"));
    assert!(
        codes(&mut w, &twice)
            .await
            .iter()
            .all(|(rpc, code)| *code == Code::InvalidArgument || rpc.contains("WIT"))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_08_no_transport_security_is_required() -> Result<()> {
    let (_d, mut w) = entitled().await?; // a plaintext channel
    next(&mut x509(&mut w).await?).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_13_no_client_authentication_in_band() -> Result<()> {
    let (_d, mut w) = entitled().await?; // no credential but the header, which is the same for everybody
    assert!(!next(&mut x509(&mut w).await?).await?.svids.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_14_the_caller_is_known_from_the_kernel() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    entry_for_me(&d, "mine", &[])?;
    d.entry("theirs", "/theirs", "unix:uid:4294967", &[])?;
    d.eventually("mine", std::time::Duration::from_secs(20), || {
        d.agent_api(&["api", "fetch"]).code == Some(0)
    })?;
    let mut w = d.workload().await?;
    assert_eq!(
        steeple_conformance::ids(&next(&mut x509(&mut w).await?).await?),
        ["spiffe://example.org/mine"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_16_a_missing_header_answers_invalid_argument() -> Result<()> {
    let (_d, mut w) = entitled().await?;
    let refused = refusal(w.api.fetch_x509svid(Request::new(X509svidRequest {})).await).await?;
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "security header missing from request")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_18_shedding_answers_unavailable() -> Result<()> {
    // The agent's own rate limit is its way to shed load.
    let d = Deployment::builder()
        .agent_options("experimental { ratelimit { fetch_x509_svid = 1 } }")
        .start_with_agent()?;
    entry_for_me(&d, "e", &[])?;
    let mut w = d.workload().await?;
    let mut codes = Vec::new();
    for _ in 0..20 {
        codes.push(
            refusal(w.api.fetch_x509svid(Workload::request(X509svidRequest {})).await)
                .await
                .map(|status| status.code())
                .ok(),
        );
    }
    assert!(codes.contains(&Some(Code::Unavailable)), "{codes:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_19_a_caller_without_identity_gets_permission_denied() -> Result<()> {
    let (_d, mut w) = stranger().await?;
    let refused = refusal(w.api.fetch_x509svid(Workload::request(X509svidRequest {})).await).await?;
    assert_eq!(refused.code(), Code::PermissionDenied);
    Ok(())
}

/// The services that reflection lists.
async fn services(d: &Deployment) -> Result<Vec<String>> {
    let channel = connect_uds(&d.workload_socket()).await?;
    let mut client = ServerReflectionClient::new(channel);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        client.server_reflection_info(Workload::request(tokio_stream::once(request))).await?.into_inner();
    match answers.message().await?.context("no answer")?.message_response.context("empty")? {
        MessageResponse::ListServicesResponse(list) => {
            Ok(list.service.into_iter().map(|service| service.name).collect())
        }
        other => anyhow::bail!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_21_additions_are_services_of_their_own() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    let names = services(&d).await?;
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
    for name in &names {
        let known = name == "SpiffeWorkloadAPI" || name.contains('.');
        assert!(known, "{name} has no package of its own");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_22_the_workload_api_is_served() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    assert!(services(&d).await?.contains(&"SpiffeWorkloadAPI".to_owned()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_23_reflection_is_available() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    assert!(services(&d).await?.iter().any(|name| name.starts_with("grpc.reflection.")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wa_03_reflection_shows_exactly_the_methods_of_the_standard() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    let channel = connect_uds(&d.workload_socket()).await?;
    let mut client = ServerReflectionClient::new(channel);
    let ask = MessageRequest::FileContainingSymbol("SpiffeWorkloadAPI".into());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut answers =
        client.server_reflection_info(Workload::request(tokio_stream::once(request))).await?.into_inner();
    let MessageResponse::FileDescriptorResponse(files) =
        answers.message().await?.context("no answer")?.message_response.context("empty")?
    else {
        anyhow::bail!("no descriptor")
    };
    let mut methods = Vec::new();
    for file in files.file_descriptor_proto {
        let file = <prost_types::FileDescriptorProto as prost::Message>::decode(file.as_slice())?;
        for service in file.service.iter().filter(|service| service.name() == "SpiffeWorkloadAPI") {
            methods.extend(service.method.iter().map(|method| method.name().to_owned()));
        }
    }
    methods.sort();
    let standard = [
        "FetchJWTBundles",
        "FetchJWTSVID",
        "FetchWITBundles",
        "FetchWITSVID",
        "FetchX509Bundles",
        "FetchX509SVID",
        "ValidateJWTSVID",
    ];
    assert_eq!(methods, standard);
    Ok(())
}
