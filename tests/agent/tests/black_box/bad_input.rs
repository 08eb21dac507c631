//! What is malformed is refused, with the code and message of SPIRE: tables that also run on SPIRE's own agent. What is
//! no gRPC at all costs no memory and holds nobody up.

#[path = "bad_input/call.rs"]
mod call;
#[path = "bad_input/wire.rs"]
mod wire;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message;
use steeple_e2e::{Deployment, Subject, Workload};
use steeple_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use steeple_proto::spire::api::agent::delegatedidentity::v1 as delegated;
use steeple_proto::spire::api::types;
use steeple_proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest,
    X509BundlesRequest, X509svidRequest,
};
use tonic::Code;

use call::{Calls, HEADER};

/// A request and what is answered. A message that ends with `…` goes on in the words of the library that reads it.
struct Case(&'static str, Vec<u8>, Code, &'static str);

const WORKLOAD: [&str; 7] = [
    "FetchX509SVID",
    "FetchX509Bundles",
    "FetchJWTSVID",
    "FetchJWTBundles",
    "ValidateJWTSVID",
    "FetchWITSVID",
    "FetchWITBundles",
];
const NO_HEADER: &str = "security header missing from request";
const SDS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/";
const DELEGATED: &str = "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/";

fn bytes(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

fn jwt(audience: &[&str], id: &str) -> Vec<u8> {
    let audience = audience.iter().map(ToString::to_string).collect();
    bytes(&JwtsvidRequest { audience, spiffe_id: id.into() })
}

fn validate(audience: &str, svid: &str) -> Vec<u8> {
    bytes(&ValidateJwtsvidRequest { audience: audience.into(), svid: svid.into() })
}

/// Workload API: what is wrong with the message itself, for a caller with an identity.
fn workload_cases() -> Vec<Case> {
    use Code::{InvalidArgument, PermissionDenied};
    let no_audience = "audience must be specified";
    vec![
        Case("FetchJWTSVID", jwt(&[], ""), InvalidArgument, no_audience),
        Case("FetchJWTSVID", jwt(&[], "spiffe://example.org/me"), InvalidArgument, no_audience),
        Case(
            "FetchJWTSVID",
            jwt(&["a"], "x"),
            InvalidArgument,
            "invalid requested SPIFFE ID: scheme is missing or invalid",
        ),
        Case(
            "FetchJWTSVID",
            jwt(&["a"], "spiffe://"),
            InvalidArgument,
            "invalid requested SPIFFE ID: trust domain is missing",
        ),
        Case(
            "FetchJWTSVID",
            jwt(&["a"], "spiffe://EXAMPLE.org/x"),
            InvalidArgument,
            "invalid requested SPIFFE ID: …",
        ),
        Case(
            "FetchJWTSVID",
            jwt(&["a"], "spiffe://example.org/x/"),
            InvalidArgument,
            "invalid requested SPIFFE ID: path cannot have a trailing slash",
        ),
        Case(
            "FetchJWTSVID",
            jwt(&["a"], "spiffe://example.org/x/../y"),
            InvalidArgument,
            "invalid requested SPIFFE ID: path cannot contain dot segments",
        ),
        Case(
            "FetchJWTSVID",
            jwt(&["a"], "spiffe://example.org/another"),
            PermissionDenied,
            "no identity issued",
        ),
        Case("FetchJWTSVID", jwt(&["a"], "spiffe://other.org/me"), PermissionDenied, "no identity issued"),
        Case("ValidateJWTSVID", validate("", "x"), InvalidArgument, no_audience),
        Case("ValidateJWTSVID", validate("a", ""), InvalidArgument, "svid must be specified"),
        Case("ValidateJWTSVID", validate("a", "x"), InvalidArgument, "unable to parse JWT token: …"),
        Case("ValidateJWTSVID", validate("a", "x.y.z"), InvalidArgument, "unable to parse JWT token: …"),
        Case("ValidateJWTSVID", validate("a", "e30.e30."), InvalidArgument, "unable to parse JWT token: …"),
        Case(
            "ValidateJWTSVID",
            validate("a", "eyJhbGciOiJub25lIn0.e30."),
            InvalidArgument,
            "unable to parse JWT token: …",
        ),
        Case(
            "ValidateJWTSVID",
            validate("a", "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"),
            InvalidArgument,
            "unable to parse JWT token: …",
        ),
    ]
}

async fn check(calls: &mut Calls, prefix: &str, headers: &[(&'static str, &'static str)], case: &Case) {
    let Case(method, body, code, message) = case;
    let status = calls.refusal(&format!("{prefix}{method}"), headers, body).await;
    let said = status.message();
    let fits = match message.strip_suffix('…') {
        Some(beginning) => said.starts_with(beginning),
        None => said == *message,
    };
    assert!(
        status.code() == *code && fits,
        "{prefix}{method} {body:?} {headers:?}: {:?} {said:?} in place of {code:?} {message:?}",
        status.code()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_of_the_workload_socket() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    let mut calls = Calls::connect(&d.workload_socket()).await?;
    let empty: fn(&str) -> Vec<u8> = |method| match method {
        "FetchX509SVID" => bytes(&X509svidRequest {}),
        "FetchX509Bundles" => bytes(&X509BundlesRequest {}),
        "FetchJWTSVID" => jwt(&["a"], ""),
        "FetchJWTBundles" => bytes(&JwtBundlesRequest {}),
        "ValidateJWTSVID" => validate("a", "x"),
        "FetchWITSVID" => bytes(&WitsvidRequest::default()),
        _ => bytes(&WitBundlesRequest {}),
    };
    for method in WORKLOAD {
        let refused = Case(method, empty(method), Code::InvalidArgument, NO_HEADER);
        for headers in [
            &[][..],
            &[("workload.spiffe.io", "True")],
            &[("workload.spiffe.io", "false")],
            &[("workload.spiffe.io", "")],
            &[("workload.spiffe.io", "true,true")],
            &[HEADER, HEADER],
            &[HEADER, ("workload.spiffe.io", "false")],
            &[("workload-spiffe-io", "true")],
        ] {
            check(&mut calls, "/SpiffeWorkloadAPI/", headers, &refused).await;
        }
        // A message that is none.
        let status = calls.refusal(&format!("/SpiffeWorkloadAPI/{method}"), &[HEADER], &[0xff; 9]).await;
        assert_eq!(status.code(), Code::Internal, "{method}: {status}");
    }
    // Nobody has an identity yet.
    for method in ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles"] {
        let refused = Case(method, empty(method), Code::PermissionDenied, "no identity issued");
        check(&mut calls, "/SpiffeWorkloadAPI/", &[HEADER], &refused).await;
    }
    for (method, what) in [("FetchWITSVID", "WIT-SVIDs"), ("FetchWITBundles", "WIT bundles")] {
        let status = calls.refusal(&format!("/SpiffeWorkloadAPI/{method}"), &[HEADER], &[]).await;
        assert_eq!(status.code(), Code::Unimplemented);
        assert_eq!(status.message(), format!("fetching {what} is not implemented"));
    }
    let unknown = calls.refusal("/SpiffeWorkloadAPI/FetchNothing", &[HEADER], &[]).await;
    assert_eq!(unknown.code(), Code::Unimplemented, "{unknown}");
    let unknown = calls.refusal("/no.such.Service/Call", &[HEADER], &[]).await;
    assert_eq!(unknown.code(), Code::Unimplemented, "{unknown}");

    d.entry_for_me("me", "/me")?;
    d.eventually("an identity", Duration::from_mins(1), || {
        d.agent_api(&["api", "fetch", "x509"]).code == Some(0)
    })?;
    for case in workload_cases() {
        check(&mut calls, "/SpiffeWorkloadAPI/", &[HEADER], &case).await;
    }

    // Envoy's secrets: no header is needed.
    let names = DiscoveryRequest { resource_names: vec!["nothing".into()], ..Default::default() };
    let refused = "workload is not authorized for the requested identities [\"nothing\"]";
    for method in ["FetchSecrets", "StreamSecrets"] {
        check(&mut calls, SDS, &[], &Case(method, bytes(&names), Code::InvalidArgument, refused)).await;
        let status = calls.refusal(&format!("{SDS}{method}"), &[], &[0xff; 9]).await;
        assert_eq!(status.code(), Code::Internal, "{method}: {status}");
    }
    if d.subject() == Subject::Spire {
        let case = Case(
            "DeltaSecrets",
            bytes(&DeltaDiscoveryRequest::default()),
            Code::Unimplemented,
            "Method is not implemented",
        );
        check(&mut calls, SDS, &[], &case).await;
    }

    // Health is that of the agent as a whole.
    let body = vec![10, 7, b'n', b'o', b't', b'h', b'i', b'n', b'g'];
    let case = Case("Check", body, Code::InvalidArgument, "per-service health is not supported");
    check(&mut calls, "/grpc.health.v1.Health/", &[], &case).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_of_the_admin_socket() -> Result<()> {
    use Code::{InvalidArgument, PermissionDenied};
    const STREAMS: [&str; 2] = ["SubscribeToX509SVIDs", "FetchJWTSVIDs"];
    let d = Deployment::builder()
        .agent_options("authorized_delegates = [\"spiffe://example.org/me\"]")
        .start_with_agent()?;
    let mut calls = Calls::connect(&d.admin_socket()).await?;
    let all = ["SubscribeToX509SVIDs", "SubscribeToX509Bundles", "FetchJWTSVIDs", "SubscribeToJWTBundles"];
    let audience = |request: delegated::FetchJwtsviDsRequest| bytes(&request);
    let with = |selectors: &[(&str, &str)], pid: i32| delegated::SubscribeToX509sviDsRequest {
        selectors: selectors
            .iter()
            .map(|(kind, value)| types::Selector { r#type: (*kind).into(), value: (*value).into() })
            .collect(),
        pid,
    };
    let jwts = |names: &[&str], selectors: &[(&str, &str)], pid: i32| {
        let x509 = with(selectors, pid);
        let audience = names.iter().map(ToString::to_string).collect();
        delegated::FetchJwtsviDsRequest { audience, selectors: x509.selectors, pid }
    };
    // A caller that is nobody.
    for method in all {
        let body =
            if method == "FetchJWTSVIDs" { audience(jwts(&["a"], &[("a", "b")], 0)) } else { Vec::new() };
        check(&mut calls, DELEGATED, &[], &Case(method, body, PermissionDenied, "no identity issued")).await;
        let status = calls.refusal(&format!("{DELEGATED}{method}"), &[], &[0xff; 9]).await;
        assert_eq!(status.code(), Code::Internal, "{method}: {status}");
    }
    // One that is somebody else.
    d.entry_for_me("other", "/other")?;
    d.eventually("an identity", Duration::from_mins(1), || {
        d.agent_api(&["api", "fetch", "x509"]).code == Some(0)
    })?;
    let not_listed = "caller not configured as an authorized delegate";
    for method in STREAMS {
        let body = if method == "FetchJWTSVIDs" {
            audience(jwts(&["a"], &[("a", "b")], 0))
        } else {
            bytes(&with(&[("a", "b")], 0))
        };
        check(&mut calls, DELEGATED, &[], &Case(method, body, PermissionDenied, not_listed)).await;
    }
    // A delegate.
    d.entry_for_me("me", "/me")?;
    d.eventually("the delegate's identity", Duration::from_mins(1), || {
        d.agent_api(&["api", "fetch", "x509"]).stdout.contains("spiffe://example.org/me")
    })?;
    let either = "must provide either selectors or non-zero PID, but not both";
    let selectors = "could not parse provided selectors";
    for case in [
        Case("SubscribeToX509SVIDs", bytes(&with(&[], 0)), InvalidArgument, either),
        Case("SubscribeToX509SVIDs", bytes(&with(&[("unix", "uid:0")], 1)), InvalidArgument, either),
        Case("SubscribeToX509SVIDs", bytes(&with(&[("", "x")], 0)), InvalidArgument, selectors),
        Case("SubscribeToX509SVIDs", bytes(&with(&[("x", "")], 0)), InvalidArgument, selectors),
        Case("SubscribeToX509SVIDs", bytes(&with(&[("a:b", "c")], 0)), InvalidArgument, selectors),
        Case(
            "FetchJWTSVIDs",
            audience(jwts(&[], &[("unix", "uid:0")], 0)),
            InvalidArgument,
            "audience must be specified",
        ),
        Case("FetchJWTSVIDs", audience(jwts(&["a"], &[], 0)), InvalidArgument, either),
        Case("FetchJWTSVIDs", audience(jwts(&["a"], &[("unix", "uid:0")], 1)), InvalidArgument, either),
        Case("FetchJWTSVIDs", audience(jwts(&["a"], &[("", "x")], 0)), InvalidArgument, selectors),
        Case(
            "FetchJWTSVIDs",
            audience(jwts(&["a"], &[("nobody", "x")], 0)),
            PermissionDenied,
            "no identity issued",
        ),
    ] {
        check(&mut calls, DELEGATED, &[], &case).await;
    }
    // Logger and Debug.
    let logger = "/spire.api.agent.logger.v1.Logger/";
    let unspecified = "newLevel value cannot be LogLevel_UNSPECIFIED";
    check(&mut calls, logger, &[], &Case("SetLogLevel", Vec::new(), InvalidArgument, unspecified)).await;
    let status = calls.refusal(&format!("{logger}SetLogLevel"), &[], &[8, 99]).await;
    assert_eq!(status.code(), InvalidArgument, "{status}");
    for path in ["/spire.api.agent.logger.v1.Logger/GetLogger", "/spire.agent.debug.v1.Debug/GetInfo"] {
        let status = calls.refusal(path, &[], &[0xff; 9]).await;
        assert_eq!(status.code(), Code::Internal, "{path}: {status}");
    }
    // What the other socket serves.
    for path in
        ["/SpiffeWorkloadAPI/FetchX509SVID", "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets"]
    {
        let status = calls.refusal(path, &[HEADER], &[]).await;
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status}");
    }
    Ok(())
}

/// Somebody who behaves is served, and the agent has not grown beyond `limit` KiB.
async fn serves(d: &Deployment, what: &str, limit: u64) -> Result<()> {
    let mut w = d.workload().await?;
    let asking = async {
        let mut stream = w.api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner();
        stream.message().await?.context("no message")
    };
    let answer = tokio::time::timeout(Duration::from_mins(1), asking).await;
    ensure!(!answer.with_context(|| format!("{what}: nobody is served"))??.svids.is_empty());
    let rss = d.agent.as_ref().and_then(steeple_e2e::Daemon::rss_kib).context("the agent is gone")?;
    // SPIRE's grows to 190 MB under ten thousand streams.
    ensure!(rss < limit || d.subject() == Subject::Spire, "{what}: the agent has grown to {rss} KiB");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_grpc_costs_nothing_and_holds_nobody_up() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    d.entry_for_me("me", "/me")?;
    d.eventually("an identity", Duration::from_mins(1), || {
        d.agent_api(&["api", "fetch", "x509"]).code == Some(0)
    })?;
    let before = d.agent.as_ref().and_then(steeple_e2e::Daemon::rss_kib).context("no agent")?;
    let limit = before + (64 << 10);
    for socket in [d.workload_socket(), d.admin_socket()] {
        for (what, attack) in wire::ATTACKS {
            let socket = socket.clone();
            let held = tokio::task::spawn_blocking(move || attack(&socket)).await?;
            let held = held.with_context(|| (*what).to_owned())?;
            serves(&d, what, limit).await?;
            drop(held);
        }
    }
    serves(&d, "afterwards", limit).await
}

/// A caller in another PID namespace, of which the agent cannot know the process, and one that is gone before it is
/// looked at, get no other process's identity.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_execs_keeps_its_own_identity() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    d.entry_for_me("me", "/me")?;
    d.eventually("an identity", Duration::from_mins(1), || {
        d.agent_api(&["api", "fetch", "x509"]).code == Some(0)
    })?;
    let agent = d.program("spire-agent");
    let socket = d.workload_socket();
    // exec between connecting and asking is what `sh -c exec` does to the command's own process.
    let line = format!("exec {} api fetch x509 -socketPath {}", agent.display(), socket.display());
    let ran = std::process::Command::new("/bin/sh").args(["-c", &line]).output()?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    ensure!(ran.status.success() && said.contains("spiffe://example.org/me"), "{said}");
    // In a PID namespace of its own the process is known to the agent by the number that it has outside.
    let inside =
        std::process::Command::new("unshare").args(["--pid", "--fork", "/bin/sh", "-c", &line]).output()?;
    let (said, error) = (String::from_utf8_lossy(&inside.stdout), String::from_utf8_lossy(&inside.stderr));
    if error.contains("unshare failed") || error.contains("Operation not permitted") {
        return Ok(());
    }
    ensure!(inside.status.success() && said.contains("spiffe://example.org/me"), "{said} {error}");
    Ok(())
}
