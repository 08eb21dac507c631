//! Clients that do not read what they are sent, on every kind of stream: they cost little, end with a reason, and nobody
//! else notices.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use steeple_e2e::{Deployment, Subject, Workload, connect_uds, uid};
use steeple_proto::envoy::service::discovery::v3 as xds;
use steeple_proto::spire::api::agent::delegatedidentity::v1::SubscribeToX509sviDsRequest;
use steeple_proto::spire::api::server::entry::v1::BatchUpdateEntryRequest;
use steeple_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use steeple_proto::spire::api::types::{Entry, EntryMask, Selector};
use steeple_proto::workload::X509svidRequest;
use steeple_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::raw::{DATA, Raw};

const LONG: Duration = Duration::from_mins(1);

fn options(timeout: &str) -> String {
    format!(
        "authorized_delegates = [\"spiffe://example.org/me0\"]\nexperimental {{ slow_reader_timeout = \"{timeout}\" }}"
    )
}

/// Gives the workload new SVIDs.
async fn update(d: &Deployment, n: usize) -> Result<()> {
    let mut server = EntryClient::new(connect_uds(&d.server_socket()).await?);
    let changed = Entry { id: "me0".into(), dns_names: vec![format!("n{n}.example")], ..Entry::default() };
    let input_mask = Some(EntryMask { dns_names: true, ..EntryMask::default() });
    let request = BatchUpdateEntryRequest { entries: vec![changed], input_mask, output_mask: None };
    let results = server.batch_update_entry(request).await?.into_inner().results;
    let done =
        results.first().and_then(|result| result.status.as_ref()).is_some_and(|status| status.code == 0);
    ensure!(done, "{results:?}");
    Ok(())
}

fn svids(d: &Deployment, count: usize) -> Result<()> {
    for n in 0..count {
        d.entry_for_me(&format!("me{n}"), &format!("/me{n}"))?;
    }
    let last = format!("/me{}", count - 1);
    d.eventually("identities", LONG, || d.agent_api(&["api", "fetch"]).stdout.contains(&last))
}

/// Every stream that the agent serves: the socket's, its path, its first message, whether that is the only one.
fn kinds(d: &Deployment) -> Vec<(bool, String, Vec<u8>, bool)> {
    let workload = ["FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles"];
    let mut kinds: Vec<_> =
        workload.iter().map(|method| (false, format!("/SpiffeWorkloadAPI/{method}"), vec![], true)).collect();
    let type_url = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    let sds = "/envoy.service.secret.v3.SecretDiscoveryService";
    let all = xds::DiscoveryRequest { type_url: type_url.into(), ..Default::default() };
    kinds.push((false, format!("{sds}/StreamSecrets"), all.encode_to_vec(), false));
    let all = xds::DeltaDiscoveryRequest { type_url: type_url.into(), ..Default::default() };
    kinds.push((false, format!("{sds}/DeltaSecrets"), all.encode_to_vec(), false));
    let selectors = vec![Selector { r#type: "unix".into(), value: format!("uid:{}", uid()) }];
    let of_me = SubscribeToX509sviDsRequest { selectors, ..Default::default() }.encode_to_vec();
    let delegated = "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity";
    kinds.push((true, format!("{delegated}/SubscribeToX509SVIDs"), of_me, true));
    for method in ["SubscribeToX509Bundles", "SubscribeToJWTBundles"] {
        kinds.push((true, format!("{delegated}/{method}"), vec![], true));
    }
    if d.subject() == Subject::Spire {
        kinds.retain(|(_, path, _, _)| !path.ends_with("DeltaSecrets"));
    }
    kinds
}

fn scrape(port: u16) -> Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    write!(socket, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    socket.read_to_string(&mut page)?;
    Ok(page)
}

#[tokio::test]
async fn a_client_that_never_reads_is_dropped_with_a_reason_whatever_it_asked_for() -> Result<()> {
    let port = steeple_e2e::free_port()?;
    let telemetry = format!("telemetry {{ Prometheus {{ port = {port} }} }}\n");
    let d =
        Deployment::builder().agent_options(&options("1s")).agent_blocks(&telemetry).start_with_agent()?;
    svids(&d, 1)?;
    let mut reader = Raw::connect(&d.workload_socket(), 1 << 20)?;
    reader.fetch_x509_svid()?;
    reader.message()?;
    let mut stuck = Vec::new();
    for (admin, path, message, last) in kinds(&d) {
        let socket = if admin { d.admin_socket() } else { d.workload_socket() };
        let mut raw = Raw::connect(&socket, 0)?;
        raw.call(&path, &message, last)?;
        stuck.push((path, raw));
    }
    update(&d, 1).await?;
    reader.message().context("who reads is told all the same")?;
    if d.subject() == Subject::Spire {
        return Ok(()); // Holds them for as long as they like.
    }
    for (path, raw) in &mut stuck {
        // Headers may come, data cannot; then the connection ends.
        while let Ok(frame) = raw.next() {
            ensure!(frame.kind != DATA, "{path}: {frame:?}");
        }
    }
    let page = scrape(port)?;
    for (path, _) in &stuck {
        let method = path.replace(['/', '.'], "_");
        let line = page.lines().find(|line| line.contains("slow_reader_dropped") && line.contains(&method));
        ensure!(line.is_some_and(|line| !line.ends_with(" 0")), "{path}:\n{page}");
    }
    let log = d.agent.as_ref().context("no agent")?.log();
    ensure!(log.contains("Call ended: its client does not read"), "{log}");
    update(&d, 2).await?;
    reader.message()?;
    Ok(())
}

#[tokio::test]
async fn who_reads_again_hears_why_the_stream_ended() -> Result<()> {
    let d = Deployment::builder().agent_options(&options("6s")).start_with_agent()?;
    if d.subject() == Subject::Spire {
        return Ok(());
    }
    svids(&d, 1)?;
    let path = d.workload_socket();
    // Less than a message, and no more until somebody reads.
    let channel = Endpoint::from_static("http://localhost")
        .initial_stream_window_size(64)
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await?;
    let mut api = SpiffeWorkloadApiClient::new(channel);
    let mut stream = api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner();
    let end = Instant::now() + LONG;
    let log = || d.agent.as_ref().map(steeple_e2e::Daemon::log).unwrap_or_default();
    for n in 0.. {
        ensure!(Instant::now() < end, "{}", log());
        // What comes while the first message is on its way has to wait.
        update(&d, n).await?;
        if log().contains("Call ended: its client does not read") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let ended = loop {
        match stream.message().await {
            Ok(message) => ensure!(message.is_some(), "it ended without a word"),
            Err(status) => break status,
        }
    };
    ensure!(ended.code() == Code::Unavailable, "{ended:?}");
    ensure!(ended.message() == "the stream ended: nothing of it was read for 6s", "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn what_a_client_does_not_read_does_not_pile_up() -> Result<()> {
    const CLIENTS: usize = 100;
    const UPDATES: usize = 20;
    let d = Deployment::builder().quiet().agent_options(&options("1h")).start_with_agent()?;
    if d.subject() == Subject::Spire {
        return Ok(());
    }
    // A message of some 60 kB.
    svids(&d, 50)?;
    let mut reader = Raw::connect(&d.workload_socket(), 8 << 20)?;
    reader.grant(0, 8 << 20)?;
    reader.fetch_x509_svid()?;
    let size = reader.message()?.len() as u64;
    let before = d.agent.as_ref().and_then(steeple_e2e::Daemon::rss_kib).context("no agent")?;
    let mut stuck = Vec::new();
    for _ in 0..CLIENTS {
        let mut raw = Raw::connect(&d.workload_socket(), 64)?;
        raw.fetch_x509_svid()?;
        ensure!(raw.next()?.stream == 1, "headers");
        stuck.push(raw);
    }
    for n in 0..UPDATES {
        update(&d, n).await?;
        reader.message()?;
    }
    let after = d.agent.as_ref().and_then(steeple_e2e::Daemon::rss_kib).context("no agent")?;
    println!("{CLIENTS} slow readers of {size} bytes, {UPDATES} updates: {before} → {after} KiB");
    // All of it would be 20 messages each.
    let most = CLIENTS as u64 * (3 * size / 1024 + 64) + 16 * 1024;
    ensure!(after < before + most, "{before} → {after} KiB, at most {most} more");
    Ok(())
}
