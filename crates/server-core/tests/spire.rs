//! A database and key file that a SPIRE server left are taken over as they are: the same CA and JWT key go on
//! signing, and its entries and bundles are in the view.
#![cfg(test)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use steeple_datastore::Datastore;
use steeple_datastore_sql::{SqlStore, SqliteConfig};
use steeple_plugins_base::key_manager::DiskKeyManager;
use steeple_server_core::ca::{CaConfig, CaManager};
use steeple_server_core::view::View;
use steeple_spiffe::TrustDomain;

const NOW: i64 = 1_800_000_000;

#[tokio::test]
async fn a_spire_servers_state_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let database = directory.path().join("datastore.sqlite3");
    let keys = directory.path().join("keys.json");
    fs::copy(here.join("../datastore-sql/testdata/spire-v25.sqlite3"), &database).unwrap();
    fs::copy(here.join("testdata/spire-server-keys.json"), &keys).unwrap();
    for file in [&database, &keys] {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let keys_before = fs::read(&keys).unwrap();

    let store: Arc<dyn Datastore> =
        Arc::new(SqlStore::open_sqlite(&SqliteConfig::new(database.to_str().unwrap())).unwrap());
    let trust_domain = TrustDomain::new("example.org").unwrap();
    let before = store.fetch_bundle(&trust_domain).await.unwrap().unwrap();
    for start in 0..2 {
        let key_manager = Arc::new(DiskKeyManager::open(&keys).unwrap());
        let config = CaConfig::new(trust_domain.clone());
        let ca = CaManager::load(config, key_manager, Arc::clone(&store), NOW + start).await.unwrap();
        assert_eq!(ca.x509_authority_id().as_deref(), Some("5ca6b7bb08c2c38df17c9a211a2b0406c7213566"));
        assert_eq!(ca.jwt_authority_id().as_deref(), Some("DwdVKNDwypQ3HpGOTOwG9O9bcl2gtaDy"));
    }
    assert_eq!(store.fetch_bundle(&trust_domain).await.unwrap().unwrap(), before);
    assert_eq!(fs::read(&keys).unwrap(), keys_before, "the key file is left as it was");

    let (view, _follower) = View::open(store, trust_domain.clone()).await.unwrap();
    assert!(view.entry_count() > 0);
    assert_eq!(*view.bundle(&trust_domain).unwrap(), before);
    assert!(view.bundle(&TrustDomain::new("other.org").unwrap()).is_some());
}
