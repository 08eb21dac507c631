//! The Workload API's messages, written by hand so that a key is copied once and the same content always gives the
//! same bytes (maps sorted).

use bytes::Bytes;
use steeple_agent_core::cache::Content;
use steeple_spiffe::bundle::Bundle;

/// X509SVIDResponse (Workload API §5.2.1). One entry per identity, in entry id order; CRLs are never sent.
pub(super) fn x509_svid(content: &Content) -> Bytes {
    let bundle = content.bundle.as_ref().map(|bundle| bundle.x509_der()).unwrap_or_default();
    let mut out = Writer::default();
    for identity in &content.identities {
        let mut svid = Writer::default();
        svid.field(1, identity.entry.spiffe_id.as_str().as_bytes());
        svid.field(2, &identity.svid.chain);
        svid.field(3, &identity.svid.key);
        svid.field(4, &bundle);
        svid.field(5, identity.entry.hint.as_bytes());
        out.message(1, svid);
    }
    for federated in &content.federated {
        out.map_entry(3, federated, &federated.x509_der());
    }
    out.finish()
}

/// X509BundlesResponse (§5.2.2): keys are trust domain IDs.
pub(super) fn x509_bundles(own: &Bundle, federated: &[impl AsRef<Bundle>]) -> Bytes {
    bundles(2, own, federated, Bundle::x509_der)
}

/// JWTBundlesResponse (§6.2.2): plain JWK Sets with JWT keys only.
pub(super) fn jwt_bundles(own: &Bundle, federated: &[impl AsRef<Bundle>]) -> Bytes {
    bundles(1, own, federated, |bundle| bundle.to_jwks_json().into_bytes())
}

fn bundles(
    field: u32,
    own: &Bundle,
    federated: &[impl AsRef<Bundle>],
    form: impl Fn(&Bundle) -> Vec<u8>,
) -> Bytes {
    let mut all: Vec<&Bundle> = federated.iter().map(AsRef::as_ref).collect();
    all.push(own);
    all.sort_by(|a, b| a.trust_domain.cmp(&b.trust_domain));
    let mut out = Writer::default();
    for bundle in all {
        out.map_entry(field, bundle, &form(bundle));
    }
    out.finish()
}

/// Length-delimited protobuf fields.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn field(&mut self, number: u32, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        self.key(number, value.len());
        self.0.extend_from_slice(value);
    }

    fn message(&mut self, number: u32, inner: Writer) {
        self.key(number, inner.0.len());
        let mut inner = inner.0;
        self.0.extend_from_slice(&inner);
        // It may hold a private key.
        zeroize::Zeroize::zeroize(&mut inner);
    }

    fn map_entry(&mut self, number: u32, bundle: &Bundle, value: &[u8]) {
        let mut entry = Writer::default();
        entry.field(1, bundle.trust_domain.as_id_str().as_bytes());
        entry.field(2, value);
        self.message(number, entry);
    }

    fn key(&mut self, number: u32, length: usize) {
        const LENGTH_DELIMITED: u32 = 2;
        self.varint(u64::from(number << 3 | LENGTH_DELIMITED));
        self.varint(length as u64);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn finish(self) -> Bytes {
        self.0.into()
    }
}
