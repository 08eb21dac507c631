use steeple_datastore::memory::MemoryStore;
use steeple_runtime::metrics::{MetricsConfig, Registry};

use super::*;

/// What SPIRE does in calls of their own, ours does in one: both names are counted.
#[tokio::test]
async fn calls_under_spires_names() {
    let registry = Registry::new(MetricsConfig { prefix: "spire_server".to_owned(), ..Default::default() });
    let _recording = metrics::set_default_local_recorder(&registry);
    let store = MeteredStore::new(Arc::new(MemoryStore::new()));
    let agent = Agent {
        id: SpiffeId::parse("spiffe://example.org/spire/agent/x").unwrap(),
        attestation_type: "join_token".to_owned(),
        serial_number: "1".to_owned(),
        expires_at: 9,
        new_serial_number: "2".to_owned(),
        new_expires_at: 10,
        can_reattest: false,
        agent_version: String::new(),
        selectors: Vec::new(),
    };
    store.put_agent(agent.clone(), 1).await.unwrap();
    store.promote_agent_serial(&agent.id, "2", 1).await.unwrap().unwrap();
    let token = JoinToken { token: "t".to_owned(), expires_at: 9 };
    store.create_join_token(token, 1).await.unwrap();
    assert!(store.fetch_join_token("t").await.unwrap().is_some());
    assert!(store.put_agent_for_token("t", agent, 1).await.unwrap());
    assert!(store.fetch_join_token("t").await.unwrap().is_none());
    assert!(store.take_join_token("t").await.unwrap().is_none());
    assert_eq!(store.delete_entries(vec!["a".to_owned(), "b".to_owned()]).await.unwrap(), [false, false]);
    store.snapshot().await.unwrap();
    store.changes_since(Revision(0), 10).await.unwrap();
    let rendered = registry.render();
    for (name, count) in [
        ("datastore_node_create", 2),
        ("datastore_node_update", 1),
        ("datastore_node_selectors_set", 2),
        ("datastore_node_selectors_list", 1),
        ("datastore_join_token_create", 1),
        ("datastore_join_token_fetch", 2),
        ("datastore_join_token_delete", 1),
        ("entry_cache_reload", 2),
    ] {
        let line = format!("\nspire_server_{name}{{status=\"OK\"}} {count}\n");
        assert!(rendered.contains(&line), "{line} is not in {rendered}");
    }
}
