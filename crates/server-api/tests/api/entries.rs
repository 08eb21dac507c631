//! Registration entries as operators handle them.

use steeple_proto::spire::api::server::entry::v1 as pb;
use steeple_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use steeple_proto::spire::api::types;
use steeple_proto::spire::api::types::{federates_with_match, selector_match};
use steeple_spiffe::TrustDomain;
use steeple_spiffe::bundle::Bundle;
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{NOW, server};

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".to_owned(), path: path.to_owned() })
}

fn selector(kind: &str, value: &str) -> types::Selector {
    types::Selector { r#type: kind.to_owned(), value: value.to_owned() }
}

fn entry(path: &str) -> types::Entry {
    types::Entry {
        spiffe_id: id(path),
        parent_id: id("/spire/agent/x/y"),
        selectors: vec![selector("unix", "uid:1")],
        ..Default::default()
    }
}

async fn create(
    client: &mut EntryClient<Channel>,
    entries: Vec<types::Entry>,
) -> Vec<(types::Status, Option<types::Entry>)> {
    let request = pb::BatchCreateEntryRequest { entries, output_mask: None };
    let answer = client.batch_create_entry(request).await.unwrap().into_inner();
    answer.results.into_iter().map(|result| (result.status.unwrap(), result.entry)).collect()
}

async fn refusal(client: &mut EntryClient<Channel>, entry: types::Entry) -> (Code, String) {
    let (status, created) = create(client, vec![entry]).await.remove(0);
    assert_eq!(created, None);
    (Code::from_i32(status.code), status.message)
}

#[tokio::test]
async fn ten_thousand_selectors_are_kept_and_a_filter_takes_a_thousand() {
    let server = server().await;
    let mut client = EntryClient::new(server.local());
    let selectors =
        |count: u32| (0..count).map(|n| selector("unix", &format!("uid:{n:05}"))).collect::<Vec<_>>();
    for (path, count) in [("/many", 10_000), ("/some", 1_000)] {
        let entry = types::Entry { selectors: selectors(count), ..entry(path) };
        let (status, created) = create(&mut client, vec![entry]).await.remove(0);
        assert_eq!(Code::from_i32(status.code), Code::Ok, "{}", status.message);
        assert_eq!(created.unwrap().selectors.len(), count as usize);
    }
    let by_selectors = |count| {
        let exact = selector_match::MatchBehavior::MatchExact.into();
        let by_selectors = types::SelectorMatch { selectors: selectors(count), r#match: exact };
        let filter =
            pb::list_entries_request::Filter { by_selectors: Some(by_selectors), ..Default::default() };
        pb::ListEntriesRequest { filter: Some(filter), ..Default::default() }
    };
    let found = client.list_entries(by_selectors(1_000)).await.unwrap().into_inner();
    assert_eq!(found.entries.len(), 1);
    // More than the engine takes arguments: refused in a few words, not with the statement.
    let refused = client.list_entries(by_selectors(20_000)).await.unwrap_err();
    assert!(refused.message().len() < 200, "{} bytes", refused.message().len());
}

#[tokio::test]
async fn a_batch_gives_each_item_its_own_status_in_order() {
    let server = server().await;
    let mut client = EntryClient::new(server.local());
    let batch = vec![
        types::Entry { revision_number: 9, created_at: 5, ..entry("/a") },
        types::Entry { selectors: Vec::new(), ..entry("/b") },
        entry("/a"),
        types::Entry { id: "chosen".to_owned(), ..entry("/c") },
        types::Entry { id: "chosen".to_owned(), ..entry("/d") },
        types::Entry { id: "not/allowed".to_owned(), ..entry("/e") },
    ];
    let results = create(&mut client, batch).await;
    let codes: Vec<Code> = results.iter().map(|(status, _)| Code::from_i32(status.code)).collect();
    assert_eq!(
        codes,
        [
            Code::Ok,
            Code::InvalidArgument,
            Code::AlreadyExists,
            Code::Ok,
            Code::AlreadyExists,
            Code::InvalidArgument
        ]
    );
    assert_eq!(results[0].0.message, "OK");
    let first = results[0].1.as_ref().unwrap();
    assert_eq!((first.revision_number, first.created_at), (0, NOW));
    assert_eq!(results[2].0.message, "similar entry already exists");
    assert_eq!(results[2].1.as_ref().unwrap().id, first.id, "the one that is there already");
    assert_eq!(results[3].1.as_ref().unwrap().id, "chosen");
    assert!(
        results[5].0.message.starts_with("failed to create entry: datastore-validation: "),
        "{:?}",
        results[5]
    );
}

/// SPIFFE IDs and selectors at and past each limit, and everything else an entry can have wrong.
#[tokio::test]
async fn what_an_entry_can_have_wrong() {
    let server = server().await;
    let client = &mut EntryClient::new(server.local());
    let foreign = Some(types::Spiffeid { trust_domain: "other.org".to_owned(), path: "/w".to_owned() });
    let upper = Some(types::Spiffeid { trust_domain: "Example.org".to_owned(), path: "/w".to_owned() });
    // spiffe://example.org is 20 bytes long, 2,048 is the most (SPIFFE-ID §2.3).
    let longest = format!("/{}", "a".repeat(2_048 - 21));
    let cases = [
        (types::Entry { spiffe_id: None, ..entry("/") }, "invalid spiffe ID: request must specify SPIFFE ID"),
        (
            types::Entry { parent_id: None, ..entry("/a") },
            "invalid parent ID: request must specify SPIFFE ID",
        ),
        (
            types::Entry { spiffe_id: foreign.clone(), ..entry("/") },
            "invalid spiffe ID: \"spiffe://other.org/w\" is not a member of trust domain \"example.org\"",
        ),
        (
            types::Entry { parent_id: foreign, ..entry("/a") },
            "invalid parent ID: \"spiffe://other.org/w\" is not a member of trust domain \"example.org\"",
        ),
        (
            types::Entry { spiffe_id: upper, ..entry("/") },
            "invalid spiffe ID: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and \
             underscores",
        ),
        (
            entry(""),
            "invalid spiffe ID: \"spiffe://example.org\" is not a workload in trust domain \"example.org\"; path is empty",
        ),
        (entry("/a/"), "invalid spiffe ID: path cannot have a trailing slash"),
        (entry("/a//b"), "invalid spiffe ID: path cannot contain empty segments"),
        (entry("/a/../b"), "invalid spiffe ID: path cannot contain dot segments"),
        (entry("a"), "invalid spiffe ID: path must have a leading slash"),
        (
            entry("/a b"),
            "invalid spiffe ID: path segment characters are limited to letters, numbers, dots, dashes, and underscores",
        ),
        (entry(&format!("{longest}a")), "invalid spiffe ID: SPIFFE ID is longer than 2048 bytes"),
        (
            entry("/spire/x"),
            "invalid spiffe ID: \"spiffe://example.org/spire/x\" is not a workload in trust domain \"example.org\"; path \
             is in the reserved namespace",
        ),
        (types::Entry { selectors: Vec::new(), ..entry("/a") }, "selector list is empty"),
        (types::Entry { selectors: vec![selector("", "v")], ..entry("/a") }, "missing selector type"),
        (types::Entry { selectors: vec![selector("a:b", "v")], ..entry("/a") }, "selector type contains ':'"),
        (types::Entry { selectors: vec![selector("a", "")], ..entry("/a") }, "missing selector value"),
        (
            types::Entry { dns_names: vec!["a.*.b".to_owned()], ..entry("/a") },
            "invalid DNS name: wildcard must be first label",
        ),
        (
            types::Entry { dns_names: vec![" ".to_owned()], ..entry("/a") },
            "invalid DNS name: empty or only whitespace",
        ),
        (
            types::Entry { federates_with: vec!["Not A Domain".to_owned()], ..entry("/a") },
            "invalid federated trust domain: trust domain characters are limited to lowercase letters, numbers, dots, \
             dashes, and underscores",
        ),
        (
            types::Entry { hint: "h".repeat(1_025), ..entry("/a") },
            "hint is too long, max length is 1024 characters",
        ),
    ];
    for (entry, message) in cases {
        let refused = refusal(client, entry).await;
        assert_eq!(refused, (Code::InvalidArgument, format!("failed to convert entry: {message}")));
    }
    // At the limits all is well.
    let results = create(
        client,
        vec![
            entry(&longest),
            types::Entry { hint: "h".repeat(1_024), ..entry("/hint") },
            types::Entry { parent_id: id("/spire/server"), ..entry("/alias") },
        ],
    )
    .await;
    for (status, _) in results {
        assert_eq!((status.code, status.message.as_str()), (0, "OK"));
    }
    let (code, message) =
        refusal(client, types::Entry { federates_with: vec!["unknown.org".to_owned()], ..entry("/f") }).await;
    assert_eq!(
        (code, message.as_str()),
        (Code::Internal, "failed to create entry: unable to find federated bundle \"spiffe://unknown.org\"")
    );
    let (code, message) = refusal(client, types::Entry { id: "i".repeat(256), ..entry("/long-id") }).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.starts_with("failed to create entry: datastore-validation: "), "{message}");
}

#[tokio::test]
async fn get_update_delete() {
    let server = server().await;
    let mut client = EntryClient::new(server.local());
    let created =
        create(&mut client, vec![types::Entry { hint: "old".to_owned(), ..entry("/a") }]).await.remove(0);
    let created = created.1.unwrap();

    let status = client.get_entry(pb::GetEntryRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "missing ID"));
    let missing = pb::GetEntryRequest { id: "none".to_owned(), output_mask: None };
    let status = client.get_entry(missing).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "entry not found"));

    // Only the masked field is read: the rest may be missing.
    let hint = types::EntryMask { hint: true, ..Default::default() };
    let change = types::Entry { id: created.id.clone(), hint: "new".to_owned(), ..Default::default() };
    let none = types::Entry { id: "none".to_owned(), ..change.clone() };
    let bad = types::Entry { id: created.id.clone(), hint: "h".repeat(1_025), ..Default::default() };
    let request = pb::BatchUpdateEntryRequest {
        entries: vec![change, none, bad],
        input_mask: Some(hint),
        output_mask: Some(hint),
    };
    let results = client.batch_update_entry(request).await.unwrap().into_inner().results;
    let updated = results[0].entry.as_ref().unwrap();
    assert_eq!(
        (updated.hint.as_str(), updated.spiffe_id.as_ref(), updated.revision_number),
        ("new", None, 0)
    );
    let status = |n: usize| results[n].status.clone().unwrap();
    assert_eq!(
        (status(1).code, status(1).message.as_str()),
        (Code::NotFound as i32, "failed to update entry")
    );
    assert_eq!(status(2).message, "failed to convert entry: hint is too long, max length is 1024 characters");
    let got = pb::GetEntryRequest { id: created.id.clone(), output_mask: None };
    let got = client.get_entry(got).await.unwrap().into_inner();
    assert_eq!((got.hint.as_str(), got.revision_number), ("new", 1));
    assert_eq!(got.selectors, created.selectors);

    // Without a mask every field counts.
    let request =
        pb::BatchUpdateEntryRequest { entries: vec![types::Entry::default()], ..Default::default() };
    let result = client.batch_update_entry(request).await.unwrap().into_inner().results.remove(0);
    assert_eq!(
        result.status.unwrap().message,
        "failed to convert entry: invalid parent ID: request must specify SPIFFE ID"
    );

    let ids = vec![created.id.clone(), created.id, String::new()];
    let request = pb::BatchDeleteEntryRequest { ids };
    let results = client.batch_delete_entry(request).await.unwrap().into_inner().results;
    let statuses: Vec<_> =
        results.into_iter().map(|r| r.status.unwrap()).map(|s| (s.code, s.message)).collect();
    let expect = |code: Code, message: &str| (code as i32, message.to_owned());
    assert_eq!(
        statuses,
        [
            expect(Code::Ok, "OK"),
            expect(Code::NotFound, "entry not found"),
            expect(Code::InvalidArgument, "missing entry ID")
        ]
    );
}

#[tokio::test]
async fn lists_are_filtered_masked_and_paged() {
    let server = server().await;
    let other = TrustDomain::new("other.org").unwrap();
    server.state.store.create_bundle(Bundle::new(other), NOW).await.unwrap();
    let mut client = EntryClient::new(server.local());
    let two = vec![selector("unix", "uid:1"), selector("unix", "gid:1")];
    let batch = vec![
        entry("/a"),
        types::Entry { selectors: two, ..entry("/b") },
        types::Entry { downstream: true, hint: "d".to_owned(), ..entry("/c") },
        types::Entry { federates_with: vec!["other.org".to_owned()], ..entry("/d") },
    ];
    create(&mut client, batch).await;
    let filter = pb::list_entries_request::Filter::default;
    let by_selectors = |behavior: selector_match::MatchBehavior| types::SelectorMatch {
        selectors: vec![selector("unix", "uid:1")],
        r#match: behavior as i32,
    };
    let federates = types::FederatesWithMatch {
        trust_domains: vec!["other.org".to_owned()],
        r#match: federates_with_match::MatchBehavior::MatchExact as i32,
    };
    let cases = [
        (filter(), vec!["/a", "/b", "/c", "/d"]),
        (pb::list_entries_request::Filter { by_spiffe_id: id("/b"), ..filter() }, vec!["/b"]),
        (pb::list_entries_request::Filter { by_parent_id: id("/nobody"), ..filter() }, vec![]),
        (pb::list_entries_request::Filter { by_hint: Some("d".to_owned()), ..filter() }, vec!["/c"]),
        (
            pb::list_entries_request::Filter { by_hint: Some(String::new()), ..filter() },
            vec!["/a", "/b", "/c", "/d"],
        ),
        (pb::list_entries_request::Filter { by_downstream: Some(true), ..filter() }, vec!["/c"]),
        (
            pb::list_entries_request::Filter {
                by_selectors: Some(by_selectors(selector_match::MatchBehavior::MatchExact)),
                ..filter()
            },
            vec!["/a", "/c", "/d"],
        ),
        (
            pb::list_entries_request::Filter {
                by_selectors: Some(by_selectors(selector_match::MatchBehavior::MatchSuperset)),
                ..filter()
            },
            vec!["/a", "/b", "/c", "/d"],
        ),
        (pb::list_entries_request::Filter { by_federates_with: Some(federates), ..filter() }, vec!["/d"]),
    ];
    for (filter, paths) in cases {
        let request = pb::ListEntriesRequest { filter: Some(filter.clone()), ..Default::default() };
        let entries = client.list_entries(request).await.unwrap().into_inner().entries;
        let found: Vec<_> = entries.iter().map(|e| e.spiffe_id.as_ref().unwrap().path.as_str()).collect();
        assert_eq!(found, paths, "{filter:?}");
        let count = pb::CountEntriesRequest {
            filter: Some(pb::count_entries_request::Filter {
                by_spiffe_id: filter.by_spiffe_id,
                by_parent_id: filter.by_parent_id,
                by_selectors: filter.by_selectors,
                by_federates_with: filter.by_federates_with,
                by_hint: filter.by_hint,
                by_downstream: filter.by_downstream,
            }),
        };
        assert_eq!(client.count_entries(count).await.unwrap().into_inner().count as usize, paths.len());
    }
    let mask = types::EntryMask { hint: true, ..Default::default() };
    let mut request = pb::ListEntriesRequest { output_mask: Some(mask), page_size: 3, ..Default::default() };
    let mut pages = Vec::new();
    loop {
        let page = client.list_entries(request.clone()).await.unwrap().into_inner();
        assert!(
            page.entries.iter().all(|e| e.spiffe_id.is_none() && e.selectors.is_empty() && !e.id.is_empty())
        );
        pages.push(page.entries.len());
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(pages, [3, 1]);
}

#[tokio::test]
async fn bad_filters_are_named() {
    let server = server().await;
    let mut client = EntryClient::new(server.local());
    let filter = pb::list_entries_request::Filter::default;
    let selectors = |selectors| Some(types::SelectorMatch { selectors, r#match: 0 });
    let domains = |names: &[&str]| {
        let trust_domains = names.iter().map(|name| (*name).to_owned()).collect();
        Some(types::FederatesWithMatch { trust_domains, r#match: 0 })
    };
    let cases = [
        (
            pb::list_entries_request::Filter { by_parent_id: id(""), ..filter() },
            "malformed parent ID filter: \"spiffe://example.org\" is not a member of trust domain \"example.org\"; path is \
             empty",
        ),
        (
            pb::list_entries_request::Filter { by_spiffe_id: id("/spire"), ..filter() },
            "malformed SPIFFE ID filter: \"spiffe://example.org/spire\" is not a workload in trust domain \
             \"example.org\"; path is in the reserved namespace",
        ),
        (
            pb::list_entries_request::Filter { by_selectors: selectors(Vec::new()), ..filter() },
            "malformed selectors filter: empty selector set",
        ),
        (
            pb::list_entries_request::Filter { by_selectors: selectors(vec![selector("", "x")]), ..filter() },
            "malformed selectors filter: missing selector type",
        ),
        (
            pb::list_entries_request::Filter { by_federates_with: domains(&[]), ..filter() },
            "malformed federates with filter: empty trust domain set",
        ),
        (
            pb::list_entries_request::Filter { by_federates_with: domains(&["No"]), ..filter() },
            "malformed federates with filter: trust domain characters are limited to lowercase letters, numbers, dots, \
             dashes, and underscores",
        ),
    ];
    for (filter, message) in cases {
        let request = pb::ListEntriesRequest { filter: Some(filter), ..Default::default() };
        let status = client.list_entries(request).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, message));
    }
    let request = pb::ListEntriesRequest { page_size: 1, page_token: "x".to_owned(), ..Default::default() };
    let status = client.list_entries(request).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "failed to list entries: could not parse token 'x'")
    );
}
