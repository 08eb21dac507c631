use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

struct Switch(AtomicBool);

#[async_trait]
impl Check for Switch {
    async fn check(&self) -> State {
        if self.0.load(Ordering::Relaxed) {
            State::ok()
        } else {
            State { live: true, ..State::failed(serde_json::json!({ "get_bundle_err": "no" })) }
        }
    }
}

#[tokio::test]
async fn the_worst_decides() {
    let health = Health::new();
    let switch = Arc::new(Switch(AtomicBool::new(false)));
    health.add("server", switch.clone()).unwrap();
    health.add("catalog.datastore", Arc::new(Always)).unwrap();
    assert_eq!(
        health.add("server", Arc::new(Always)).unwrap_err().to_string(),
        r#"check "server" has already been added"#
    );
    assert_eq!(health.live(), (false, serde_json::json!({ "catalog.datastore": null, "server": null })));

    health.check_now().await;
    assert!(health.live().0);
    assert_eq!(
        health.ready(),
        (false, serde_json::json!({ "catalog.datastore": {}, "server": { "get_bundle_err": "no" } }))
    );
    switch.0.store(true, Ordering::Relaxed);
    health.check_now().await;
    assert!(health.ready().0);
}

#[tokio::test]
async fn over_http() {
    let health = Health::new();
    health.add("server.ca", Arc::new(Always)).unwrap();
    health.add("server", Arc::new(Always)).unwrap();
    let config = HealthConfig { bind_port: 0, ready_path: "/r".to_owned(), ..HealthConfig::default() };
    for (path, checked, status, body) in [
        ("/live", true, "HTTP/1.1 200", "{\"server\":{},\"server.ca\":{}}\n"),
        ("/r", true, "HTTP/1.1 200", "{\"server\":{},\"server.ca\":{}}\n"),
        ("/ready", true, "HTTP/1.1 404", "404 page not found\n"),
    ] {
        if checked {
            health.check_now().await;
        }
        let listener = health.listen(config.clone()).await.unwrap();
        let address = listener.address();
        let (head, got) = crate::http::tests::get(address, path, listener.serve()).await;
        assert!(head.starts_with(status), "{head}");
        assert_eq!(got, body);
    }
    health.add("late", Arc::new(Switch(AtomicBool::new(false)))).unwrap();
    let listener = health.listen(config).await.unwrap();
    let address = listener.address();
    let (head, _) = crate::http::tests::get(address, "/live", listener.serve()).await;
    assert!(head.starts_with("HTTP/1.1 500"), "{head}");
    assert!(head.contains("application/json"));
}
