//! The audit log (spire.md §1.8).

use steeple_proto::spire::api::server::agent::v1::PostStatusRequest;
use steeple_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use steeple_proto::spire::api::server::entry::v1 as pb;
use steeple_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use steeple_proto::spire::api::types;

use crate::harness::{Options, logged, server, start};

fn entry(path: &str) -> types::Entry {
    let id =
        |path: &str| Some(types::Spiffeid { trust_domain: "example.org".to_owned(), path: path.to_owned() });
    types::Entry {
        spiffe_id: id(path),
        parent_id: id("/spire/server"),
        selectors: vec![types::Selector { r#type: "unix".to_owned(), value: "uid:1".to_owned() }],
        ..Default::default()
    }
}

#[tokio::test]
async fn one_line_for_each_item_of_a_batch() {
    let server = start(Options { audit: true, ..Options::default() }).await;
    let entries =
        vec![entry("/audited-batch"), types::Entry { hint: "audited-batch".to_owned(), ..entry("/spire") }];
    let request = pb::BatchCreateEntryRequest { entries, output_mask: None };
    EntryClient::new(server.local()).batch_create_entry(request).await.unwrap();
    let lines: Vec<_> = logged("audited-batch").into_iter().filter(|line| line["type"] == "audit").collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let (good, bad) = (&lines[0], &lines[1]);
    assert_eq!(good["msg"], "API accessed");
    assert_eq!(good["status"], "success");
    assert_eq!(good["spiffe_id"], "spiffe://example.org/audited-batch");
    assert_eq!(good["selectors"], "unix:uid:1");
    assert_eq!(
        (good["service"].as_str(), good["method"].as_str()),
        (Some("entry.v1.Entry"), Some("BatchCreateEntry"))
    );
    assert_eq!(
        (good["authorized_as"].as_str(), good["authorized_via"].as_str()),
        (Some("local"), Some("transport"))
    );
    assert!(good["caller_uid"].is_number() && good["caller_gid"].is_number());
    assert!(good["caller_path"].as_str().is_some_and(|path| path.starts_with('/')));
    assert_eq!(
        (bad["status"].as_str(), bad["status_code"].as_str()),
        (Some("error"), Some("InvalidArgument"))
    );
    assert!(bad["status_message"].as_str().is_some_and(|m| m.starts_with("failed to convert entry: ")));
    assert_eq!(good["request_id"], bad["request_id"]);
}

#[tokio::test]
async fn a_call_over_tcp_names_its_caller_and_a_failure_its_status() {
    let server = start(Options { audit: true, ..Options::default() }).await;
    let (id, channel) = server.agent("audited-agent").await;
    let mut client = AgentClient::new(channel);
    let post = |version: String| PostStatusRequest { agent_version: version, ..Default::default() };
    client.post_status(post("1.2.3".to_owned())).await.unwrap();
    client.post_status(post("9".repeat(300))).await.unwrap_err();
    let lines: Vec<_> = logged("audited-agent").into_iter().filter(|line| line["type"] == "audit").collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert_eq!(lines[0]["caller_id"], id.as_str());
    assert!(lines[0]["caller_addr"].as_str().is_some_and(|addr| addr.starts_with("127.0.0.1:")));
    assert_eq!(
        (lines[0]["status"].as_str(), lines[0]["agent_version"].as_str()),
        (Some("success"), Some("1.2.3"))
    );
    assert_eq!(lines[1]["status_code"], "InvalidArgument");
    assert_eq!(lines[1]["status_message"], "agent version is too long (max 255 characters)");
}

#[tokio::test]
async fn without_the_option_there_is_none() {
    let server = server().await;
    let request = pb::BatchCreateEntryRequest { entries: vec![entry("/not-audited")], output_mask: None };
    EntryClient::new(server.local()).batch_create_entry(request).await.unwrap();
    assert!(logged("/not-audited").is_empty());
}

/// A refusal is logged with what the client does not learn.
#[tokio::test]
async fn a_refused_caller_is_logged_with_the_reason() {
    let server = server().await;
    let channel = server.workload("spiffe://example.org/refused-caller").await;
    AgentClient::new(channel).post_status(PostStatusRequest::default()).await.unwrap_err();
    let lines = logged("refused-caller");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(lines[0]["msg"], "Failed to authenticate caller");
    assert_eq!(lines[0]["reason"], "AGENT_NOT_ATTESTED");
    assert_eq!(lines[0]["error"], "agent \"spiffe://example.org/refused-caller\" is not attested");
}
