//! The Workload API's messages, written by hand so that a key is copied once and the same content always gives the
//! same bytes (maps sorted).

use std::sync::Arc;

use bytes::Bytes;
use steeple_agent_core::Entry;
use steeple_agent_core::cache::{Content, Identity};
use steeple_agent_core::jwt_cache::Token;
use steeple_agent_core::wit_cache::Held;
use steeple_spiffe::bundle::Bundle;
use zeroize::Zeroizing;

/// X509SVIDResponse (Workload API §5.2.1). One entry per identity, in entry id order; CRLs are never sent. It holds
/// private keys: measured first, so that it is written once and never moved, and wiped when the last holder drops it.
pub(super) fn x509_svid(content: &Content) -> Framed {
    let bundle = content.bundle.as_ref().map(|bundle| bundle.x509_der()).unwrap_or_default();
    let svid = |identity: &Identity, out: &mut Out| {
        out.field(1, identity.entry.spiffe_id.as_str().as_bytes());
        out.field(2, &identity.svid.chain);
        out.field(3, &identity.svid.key);
        out.field(4, &bundle);
        out.field(5, identity.entry.hint.as_bytes());
    };
    let federated: Vec<_> = content.federated.iter().map(|bundle| (bundle, bundle.x509_der())).collect();
    write(&|out| {
        for identity in &content.identities {
            out.message(1, &|out| svid(identity, out));
        }
        for (bundle, der) in &federated {
            out.map_entry(3, bundle, der);
        }
    })
}

/// X509BundlesResponse (§5.2.2): keys are trust domain IDs.
pub(super) fn x509_bundles(own: &Bundle, federated: &[impl AsRef<Bundle>]) -> Framed {
    bundles(2, own, federated, Bundle::x509_der)
}

/// JWTBundlesResponse (§6.2.2): plain JWK Sets with JWT keys only.
pub(super) fn jwt_bundles(own: &Bundle, federated: &[impl AsRef<Bundle>]) -> Framed {
    bundles(1, own, federated, |bundle| bundle.to_jwks_json().into_bytes())
}

/// JWTSVIDResponse (§6.2.1), in entry id order.
pub(super) fn jwt_svid(svids: &[(Arc<Entry>, Arc<Token>)]) -> Framed {
    write(&|out| {
        for (entry, token) in svids {
            out.message(1, &|out| {
                out.field(1, entry.spiffe_id.as_str().as_bytes());
                out.field(2, token.token.as_bytes());
                out.field(3, entry.hint.as_bytes());
            });
        }
    })
}

/// WITSVIDResponse (§7.2.1), in entry id order. It holds private keys, as [`x509_svid`]'s.
pub(super) fn wit_svid(identities: &[(Arc<Entry>, Held)]) -> Framed {
    write(&|out| {
        for (entry, held) in identities {
            out.message(1, &|out| {
                out.field(1, entry.spiffe_id.as_str().as_bytes());
                out.field(2, held.wit.token.as_bytes());
                out.field(3, held.wit.key.as_bytes());
                out.field(4, entry.hint.as_bytes());
            });
        }
    })
}

/// WITBundlesResponse (§7.2.2): JWK Sets with WIT keys only.
pub(super) fn wit_bundles(own: &Bundle, federated: &[impl AsRef<Bundle>]) -> Framed {
    bundles(1, own, federated, |bundle| bundle.to_wit_jwks_json().into_bytes())
}

fn bundles(
    field: u32,
    own: &Bundle,
    federated: &[impl AsRef<Bundle>],
    form: impl Fn(&Bundle) -> Vec<u8>,
) -> Framed {
    let mut all: Vec<&Bundle> = federated.iter().map(AsRef::as_ref).collect();
    all.push(own);
    all.sort_by(|a, b| a.trust_domain.cmp(&b.trust_domain));
    let all: Vec<_> = all.into_iter().map(|bundle| (bundle, form(bundle))).collect();
    write(&|out| {
        for (bundle, value) in &all {
            out.map_entry(field, bundle, value);
        }
    })
}

/// A message as gRPC sends it: not compressed, its length, itself. Shared by all that are sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Framed(pub Bytes);

/// What comes before a message.
const PREFIX: usize = 5;

/// A message that is for one caller only.
pub(super) fn message(message: &impl prost::Message) -> Framed {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(PREFIX + length);
    prefix(&mut bytes, length);
    message.encode_raw(&mut bytes);
    Framed(bytes.into())
}

fn prefix(bytes: &mut Vec<u8>, length: usize) {
    bytes.push(0);
    // Longer than 4 GiB is nobody's answer.
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

/// A message, or its length.
type Fields<'a> = &'a dyn Fn(&mut Out);

/// Length-delimited protobuf fields: counted only, or written too.
struct Out {
    length: usize,
    bytes: Option<Zeroizing<Vec<u8>>>,
}

/// Exactly as long as it has to be.
fn write(fields: Fields<'_>) -> Framed {
    let length = length(fields);
    let mut bytes = Zeroizing::new(Vec::with_capacity(PREFIX + length));
    prefix(&mut bytes, length);
    let mut out = Out { length: 0, bytes: Some(bytes) };
    fields(&mut out);
    Framed(Bytes::from_owner(out.bytes.unwrap_or_default()))
}

fn length(fields: Fields<'_>) -> usize {
    let mut out = Out { length: 0, bytes: None };
    fields(&mut out);
    out.length
}

impl Out {
    fn put(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        if let Some(out) = &mut self.bytes {
            out.extend_from_slice(bytes);
        }
    }

    fn field(&mut self, number: u32, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        self.key(number, value.len());
        self.put(value);
    }

    fn message(&mut self, number: u32, fields: Fields<'_>) {
        self.key(number, length(fields));
        fields(self);
    }

    fn map_entry(&mut self, number: u32, bundle: &Bundle, value: &[u8]) {
        self.message(number, &|out| {
            out.field(1, bundle.trust_domain.as_id_str().as_bytes());
            out.field(2, value);
        });
    }

    fn key(&mut self, number: u32, length: usize) {
        const LENGTH_DELIMITED: u32 = 2;
        self.varint(u64::from(number << 3 | LENGTH_DELIMITED));
        self.varint(length as u64);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.put(&[value as u8]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_long_as_it_was_measured() {
        let long = vec![7; 300];
        let fields: Fields<'_> = &|out| {
            out.message(1, &|out| {
                out.field(2, &long);
                out.field(3, b"");
                out.message(20, &|out| out.field(1, b"x"));
            });
        };
        let framed = write(fields).0;
        let (prefix, written) = framed.split_at(PREFIX);
        assert_eq!(prefix, [0, 0, 0, 1, (length(fields) - 256) as u8]);
        assert_eq!(written.len(), length(fields));
        assert_eq!(written[..6], [0x0a, 0xb5, 0x02, 0x12, 0xac, 0x02]);
        assert!(written.ends_with(&[7, 0xa2, 1, 3, 0x0a, 1, b'x']));
        let mut measured = Out { length: 0, bytes: Some(Zeroizing::new(Vec::with_capacity(length(fields)))) };
        let before = measured.bytes.as_ref().map(|bytes| bytes.as_ptr());
        fields(&mut measured);
        let after = measured.bytes.as_ref().map(|bytes| bytes.as_ptr());
        assert_eq!(before, after, "written where it was first put");
    }
}
