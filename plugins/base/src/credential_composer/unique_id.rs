//! `uniqueid`: each workload's certificate gets a subject of its own (RFC 5280 §4.1.2.6), by the attribute x500UniqueIdentifier.

use std::fmt::Write as _;

use async_trait::async_trait;
use aws_lc_rs::digest;
use steeple_plugin::{ComposeError, CredentialComposer, X509SvidAttributes};
use steeple_spiffe::{PublicKey, SpiffeId};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct UniqueId;

/// 2.5.4.45
const OID: [u8; 3] = [0x55, 0x04, 45];

#[async_trait]
impl CredentialComposer for UniqueId {
    fn name(&self) -> &'static str {
        "uniqueid"
    }

    async fn compose_workload_x509_svid(
        &self,
        id: &SpiffeId,
        _public_key: &PublicKey,
        mut attributes: X509SvidAttributes,
    ) -> Result<X509SvidAttributes, ComposeError> {
        let extra = &mut attributes.subject.extra;
        let value = unique_id(id);
        // SPIRE replaces the first one that is there.
        match extra.iter_mut().find(|(oid, _)| *oid == OID) {
            Some((_, present)) => *present = value,
            None => extra.push((OID.to_vec(), value)),
        }
        Ok(attributes)
    }
}

/// SPIRE's: the first half of the ID's SHA-256 in hex.
fn unique_id(id: &SpiffeId) -> String {
    let digest = digest::digest(&digest::SHA256, id.as_str().as_bytes());
    digest.as_ref()[..16].iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use steeple_spiffe::x509::DistinguishedName;
    use steeple_spiffe::{KeyType, PrivateKey};

    use super::*;

    #[tokio::test]
    async fn the_subject_says_who_it_is() {
        let id = SpiffeId::parse("spiffe://example.org/workload").unwrap();
        let key = PrivateKey::generate(KeyType::EcP256).unwrap().public_key();
        let before = X509SvidAttributes {
            subject: DistinguishedName::default_svid(),
            dns_names: vec!["a.example.org".to_owned()],
        };
        let once = UniqueId.compose_workload_x509_svid(&id, &key, before.clone()).await.unwrap();
        assert_eq!(once.subject.extra, [(OID.to_vec(), "9329e28c9448787df0fcb3c655605e51".to_owned())]);
        assert_eq!(once.dns_names, before.dns_names);
        // One that is there already, as in a CSR's subject, is replaced.
        let twice = UniqueId.compose_workload_x509_svid(&id, &key, once.clone()).await.unwrap();
        assert_eq!(twice, once);
        let mut foreign = before;
        foreign.subject.extra = vec![(OID.to_vec(), "mallory".to_owned())];
        let replaced = UniqueId.compose_workload_x509_svid(&id, &key, foreign).await.unwrap();
        assert_eq!(replaced, once);
    }
}
