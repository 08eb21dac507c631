//! One suite per plugin type, run by every implementation.
//!
//! The functions panic with what is wrong, as tests do.
#![allow(clippy::expect_used, reason = "a test suite that implementations call from their tests")]

pub mod node_attestor;

use std::sync::Arc;

use steeple_spiffe::x509::{self, DistinguishedName, Issuer, KeyUsage, LeafTemplate, SerialNumber};
use steeple_spiffe::{Certificate, KeyType, PrivateKey, SignatureAlgorithm, SpiffeId, TrustDomain};

use crate::{KeyManager, KeyManagerError, UpstreamAuthority, UpstreamAuthorityError};

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

/// What every upstream authority keeps to. It signs for `trust_domain`; `now` in Unix seconds.
pub async fn upstream_authority(upstream: &dyn UpstreamAuthority, trust_domain: &TrustDomain, now: i64) {
    let td = trust_domain.id_string();
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let key = PrivateKey::generate(key_type).expect("generate");
        for ttl in [60, 3600] {
            let csr = request(&key, &[&td]);
            let minted = upstream.mint_x509_ca(&csr, ttl, now).await.expect("mint");
            let ca = minted.chain.first().expect("our CA comes first");
            assert_eq!(ca.public_key(), key.public_key());
            assert!(ca.is_ca() && ca.key_usage().is_some_and(KeyUsage::cert_sign));
            assert_eq!(ca.uri_sans(), std::slice::from_ref(&td));
            assert!(ca.not_before() <= now && ca.not_after() > now && ca.not_after() <= now + ttl);
            assert!(!minted.roots.is_empty());
            let leaf = leaf_below(ca, &key, trust_domain, now);
            let svid: Vec<Certificate> = std::iter::once(leaf).chain(minted.chain.iter().cloned()).collect();
            let roots = (trust_domain.clone(), minted.roots.clone());
            x509::verify_svid(&svid, &roots, now).expect("an SVID of the minted CA verifies");
            for part in &minted.chain {
                assert!(!minted.roots.contains(part), "a root in the chain");
            }
        }
    }
    let key = pooled_key(0);
    for (bad, why) in [
        (b"garbage".to_vec(), "garbage"),
        (request(key, &[]), "no URI"),
        (request(key, &["spiffe://other.example"]), "another trust domain"),
        (request(key, &[&td, "spiffe://other.example"]), "two URIs"),
        (forged(&request(key, &[&td])), "a forged signature"),
    ] {
        let refused = upstream.mint_x509_ca(&bad, 60, now).await;
        assert!(matches!(refused, Err(UpstreamAuthorityError::Request(_))), "{why}: {refused:?}");
    }
}

fn request(key: &PrivateKey, uris: &[&str]) -> Vec<u8> {
    let algorithm = key.key_type().x509_signature_algorithm();
    let info = x509::csr_tbs(&DistinguishedName::default_ca(), &key.public_key(), uris, &[]);
    x509::assemble(&info, algorithm, &key.sign(algorithm, &info).expect("sign"))
}

/// Another last bit.
fn forged(request: &[u8]) -> Vec<u8> {
    let mut forged = request.to_vec();
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    forged
}

fn leaf_below(ca: &Certificate, key: &PrivateKey, trust_domain: &TrustDomain, now: i64) -> Certificate {
    let algorithm = key.key_type().x509_signature_algorithm();
    let template = LeafTemplate {
        spiffe_id: SpiffeId::from_parts(trust_domain, "/workload").expect("an ID"),
        public_key: key.public_key(),
        not_before: now - 10,
        not_after: now + 30,
        dns_names: Vec::new(),
        subject: None,
        serial: SerialNumber::random().expect("a serial number"),
    };
    let tbs = x509::leaf_tbs(&template, &Issuer::from_certificate(ca, algorithm)).expect("a leaf");
    let signature = key.sign(algorithm, &tbs).expect("sign");
    Certificate::from_der(&x509::assemble(&tbs, algorithm, &signature)).expect("a certificate")
}

/// Keys for tests that need many: made once for each process, handed out in turn.
pub fn pooled_key(number: usize) -> &'static PrivateKey {
    static POOL: std::sync::OnceLock<Vec<PrivateKey>> = std::sync::OnceLock::new();
    let pool = POOL.get_or_init(|| {
        (0..16).map(|_| PrivateKey::generate(KeyType::EcP256).expect("generate an EC P-256 key")).collect()
    });
    &pool[number % pool.len()]
}
