//! One suite per plugin type, run by every implementation.
//!
//! The functions panic with what is wrong, as tests do.
#![allow(clippy::expect_used, reason = "a test suite that implementations call from their tests")]

use std::sync::Arc;

use steeple_spiffe::{KeyType, PrivateKey, SignatureAlgorithm};

use crate::{KeyManager, KeyManagerError};

/// What every key manager keeps to. `keys` is empty; `key_types` are those it supports.
pub async fn key_manager(keys: Arc<dyn KeyManager>, key_types: &[KeyType]) {
    an_empty_one_has_no_keys(&*keys).await;
    for key_type in key_types {
        it_signs_with_what_it_generates(&*keys, *key_type).await;
    }
    let key_type = key_types.first().copied().expect("a key manager supports at least one key type");
    generating_again_replaces(&*keys, key_type).await;
    keys_do_not_touch_each_other(keys, key_type).await;
}

/// What a key manager that keeps its keys keeps to: `reopen` opens the same place each time.
pub async fn durable_key_manager<O, F>(reopen: O, key_type: KeyType)
where
    O: Fn() -> F,
    F: Future<Output = Arc<dyn KeyManager>>,
{
    let before = reopen().await;
    let kept = before.generate_key("kept", key_type).await.expect("generate");
    before.generate_key("replaced", key_type).await.expect("generate");
    let replaced = before.generate_key("replaced", key_type).await.expect("generate again");
    drop(before);
    for round in 0..2 {
        let after = reopen().await;
        assert_eq!(after.public_key("kept").await.expect("public key"), Some(kept.clone()), "round {round}");
        assert_eq!(after.public_key("replaced").await.expect("public key"), Some(replaced.clone()));
        let signature = after.sign("kept", key_type.x509_signature_algorithm(), b"data").await.expect("sign");
        kept.verify(key_type.x509_signature_algorithm(), b"data", &signature)
            .expect("signature of the kept key");
        after.generate_key("later", key_type).await.expect("generate");
    }
}

async fn an_empty_one_has_no_keys(keys: &dyn KeyManager) {
    assert!(keys.public_keys().await.expect("public keys").is_empty());
    assert_eq!(keys.public_key("unknown").await.expect("public key"), None);
    let signed = keys.sign("unknown", SignatureAlgorithm::EcdsaSha256, b"data").await;
    assert!(matches!(&signed, Err(KeyManagerError::NoSuchKey(id)) if id == "unknown"), "{signed:?}");
}

async fn it_signs_with_what_it_generates(keys: &dyn KeyManager, key_type: KeyType) {
    let id = format!("of-type-{key_type}");
    let generated = keys.generate_key(&id, key_type).await.expect("generate");
    assert_eq!(generated.key_type(), Some(key_type));
    assert_eq!(keys.public_key(&id).await.expect("public key"), Some(generated.clone()));
    for algorithm in [key_type.x509_signature_algorithm(), key_type.jws_algorithm()] {
        for data in [&b""[..], b"data", &[7; 10_000]] {
            let signature = keys.sign(&id, algorithm, data).await.expect("sign");
            generated.verify(algorithm, data, &signature).expect("a signature of the generated key");
        }
    }
    let other = match key_type {
        KeyType::EcP256 | KeyType::EcP384 => SignatureAlgorithm::RsaPkcs1Sha256,
        KeyType::Rsa2048 | KeyType::Rsa4096 => SignatureAlgorithm::EcdsaSha256,
    };
    assert!(keys.sign(&id, other, b"data").await.is_err(), "{key_type} must not sign with {other:?}");
}

async fn generating_again_replaces(keys: &dyn KeyManager, key_type: KeyType) {
    let algorithm = key_type.x509_signature_algorithm();
    let old = keys.generate_key("again", key_type).await.expect("generate");
    let new = keys.generate_key("again", key_type).await.expect("generate again");
    assert_ne!(old, new);
    assert_eq!(keys.public_key("again").await.expect("public key"), Some(new.clone()));
    let signature = keys.sign("again", algorithm, b"data").await.expect("sign");
    new.verify(algorithm, b"data", &signature).expect("signed by the new key");
    let of_id =
        keys.public_keys().await.expect("public keys").into_iter().filter(|(id, _)| id == "again").count();
    assert_eq!(of_id, 1);
}

async fn keys_do_not_touch_each_other(keys: Arc<dyn KeyManager>, key_type: KeyType) {
    let mut calls = Vec::new();
    for i in 0..8 {
        // Ids are data: whatever is in them comes back.
        let id = format!("many/<{i}> \"ü\"");
        let keys = Arc::clone(&keys);
        calls.push(async move { (id.clone(), keys.generate_key(&id, key_type).await.expect("generate")) });
    }
    let mut made = Vec::new();
    let mut running: Vec<_> = calls.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        running.retain_mut(|call| match call.as_mut().poll(context) {
            std::task::Poll::Ready(result) => {
                made.push(result);
                false
            }
            std::task::Poll::Pending => true,
        });
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    let listed = keys.public_keys().await.expect("public keys");
    for made in made {
        assert!(listed.contains(&made), "{:?} is missing", made.0);
    }
}

/// Keys for tests that need many: made once for each process, handed out in turn.
pub fn pooled_key(number: usize) -> &'static PrivateKey {
    static POOL: std::sync::OnceLock<Vec<PrivateKey>> = std::sync::OnceLock::new();
    let pool = POOL.get_or_init(|| {
        (0..16).map(|_| PrivateKey::generate(KeyType::EcP256).expect("generate an EC P-256 key")).collect()
    });
    &pool[number % pool.len()]
}
