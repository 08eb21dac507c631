use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use steeple_plugin::{KeyManager, conformance};

use super::*;

#[tokio::test]
async fn memory_conforms() {
    conformance::key_manager(Arc::new(MemoryKeyManager::new()), &KeyType::ALL).await;
}

#[tokio::test]
async fn disk_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let keys = DiskKeyManager::open(dir.path().join("keys.json")).unwrap();
    conformance::key_manager(Arc::new(keys), &[KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048]).await;
    let path = dir.path().join("durable.json");
    let reopen = || async { Arc::new(DiskKeyManager::open(&path).unwrap()) as Arc<dyn KeyManager> };
    conformance::durable_key_manager(reopen, KeyType::EcP256).await;
}

fn testdata(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// A file that SPIRE wrote: it is read, and what we write is the same byte for byte.
#[tokio::test]
async fn disk_keeps_spires_file() {
    for (name, ids) in [
        ("spire-server-keys.json", &["JWT-Signer-A", "JWT-Signer-B", "x509-CA-A"][..]),
        ("spire-agent-keys.json", &["agent-svid-A"]),
    ] {
        let keys = DiskKeyManager::open(testdata(name)).unwrap();
        let known: Vec<String> = keys.public_keys().await.unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(known, ids);
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy.json");
        let read = file::load(&testdata(name)).unwrap();
        file::store(&copy, &read.into_iter().map(|(id, key)| (id, Arc::new(key))).collect()).unwrap();
        assert_eq!(fs::read_to_string(copy).unwrap(), fs::read_to_string(testdata(name)).unwrap());
    }
}

#[tokio::test]
async fn disk_file_is_private_and_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    // What an interrupted write of somebody less careful left.
    fs::write(dir.path().join("keys.json.tmp"), "half").unwrap();
    let keys = DiskKeyManager::open(&path).unwrap();
    assert!(!path.exists(), "opening writes nothing");
    keys.generate_key("one", KeyType::EcP256).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(!dir.path().join("keys.json.tmp").exists());
    assert!(!format!("{keys:?}").contains("MIG"), "Debug shows no key");
}

#[tokio::test]
async fn disk_failed_write_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub").join("keys.json");
    let keys = DiskKeyManager::open(&path).unwrap();
    let error = keys.generate_key("one", KeyType::EcP256).await.unwrap_err();
    assert!(matches!(error, KeyManagerError::Store { .. }), "{error}");
    assert!(error.to_string().contains("sub/keys.json"), "{error}");
    assert!(keys.public_keys().await.unwrap().is_empty());
    fs::create_dir(dir.path().join("sub")).unwrap();
    keys.generate_key("one", KeyType::EcP256).await.unwrap();
}

#[tokio::test]
async fn agent_keys_are_in_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let keys = DiskKeyManager::open_directory(dir.path()).unwrap();
    keys.generate_key("agent-svid-A", KeyType::EcP256).await.unwrap();
    assert!(dir.path().join("keys.json").exists());
}

#[test]
fn disk_refuses_what_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    for (text, reason) in [
        ("", "unable to decode keys JSON"),
        ("{\"keys\": {\"a\": 1}}", "unable to decode keys JSON"),
        ("{\"keys\": {\"a\": \"?\"}}", "unable to parse key \"a\": not base64"),
        ("{\"keys\": {\"a\": \"AAAA\"}}", "unable to parse key \"a\""),
    ] {
        fs::write(&path, text).unwrap();
        let error = DiskKeyManager::open(&path).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("keys.json"), "{text:?}: {error}");
    }
    for text in ["{}", "{\"keys\": null}", "{\"keys\": {}}"] {
        fs::write(&path, text).unwrap();
        DiskKeyManager::open(&path).unwrap();
    }
}
