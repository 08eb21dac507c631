use steeple_proto::steeple::agent::v1::{AgentView, AttestorReport, NearMiss, ServerView};

use super::*;

fn reason(code: &str) -> Reason {
    Reason { code: code.into(), text: "Because.".into(), what_to_do: "Do it.".into() }
}

#[test]
fn text() {
    let answer = WhyResponse {
        reasons: vec![reason("SELECTOR_TYPO")],
        pid: 7,
        attestors: vec![
            AttestorReport {
                name: "unix".into(),
                micros: 1500,
                selectors: vec!["unix:uid:7".into()],
                error: String::new(),
            },
            AttestorReport {
                name: "docker".into(),
                micros: 20,
                selectors: vec![],
                error: "no socket".into(),
            },
        ],
        selectors: vec!["unix:uid:7".into()],
        matched: vec![Match {
            entry_id: "e".into(),
            spiffe_id: "spiffe://td/w".into(),
            chain: vec!["spiffe://td/node".into(), "spiffe://td/agent".into()],
            svid_issued_at: 100,
            svid_expires_at: 3700,
            rotates_at: 1900,
            entry_ttl: 3600,
            authority_expires_at: 86400,
            ..Match::default()
        }],
        near_misses: vec![NearMiss {
            entry_id: "n".into(),
            spiffe_id: "spiffe://td/n".into(),
            missing_selectors: vec!["unix:uid:17".into()],
            instead: "unix:uid:7".into(),
            reason: None,
        }],
        agent: Some(AgentView {
            spiffe_id: "spiffe://td/agent".into(),
            revision: 5,
            last_sync: 90,
            entries: 2,
            attestors: vec!["unix".into(), "docker".into()],
            ..AgentView::default()
        }),
        server: Some(ServerView { error: "not asked".into(), ..ServerView::default() }),
        ..WhyResponse::default()
    };
    assert_eq!(
        pretty(&answer, 100),
        "SELECTOR_TYPO: Because.\n\
         \x20 Do it.\n\
         \n\
         Process     7\n\
         Attestor    unix (1.5ms): 1 selector\n\
         Attestor    docker (20µs): failed: no socket\n\
         Selector    unix:uid:7\n\
         \n\
         Matches     e  spiffe://td/w\n\
         \x20 chain     spiffe://td/node <- spiffe://td/agent\n\
         \x20 issued    1970-01-01T00:01:40Z\n\
         \x20 expires   1970-01-01T01:01:40Z (in 1h0m0s)\n\
         \x20 rotates   1970-01-01T00:31:40Z (in 30m0s)\n\
         \x20 authority 1970-01-02T00:00:00Z (in 23h58m20s)\n\
         \x20 TTL       1h0m0s\n\
         \n\
         Nearly      n  spiffe://td/n\n\
         \x20 missing   unix:uid:17\n\
         \x20 has       unix:uid:7\n\
         \n\
         Agent       spiffe://td/agent\n\
         \x20 revision  5 (2 entries, last word from the server 1970-01-01T00:01:30Z (10s ago))\n\
         \x20 attestors unix, docker\n\
         Server      not asked\n"
    );
}
