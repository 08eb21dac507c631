//! Entries as bytes, for the push: thousands of them go out at once.

use prost::encoding::{WireType, encode_key, encode_varint};
use steeple_datastore::model::{AdditionalAttributes, Entry};
use steeple_spiffe::SpiffeId;

/// Writes an entry as [`super::entry_to_proto`] and prost would, without a message in between.
#[derive(Debug, Default)]
pub struct EntryEncoder {
    /// What stands inside a message, until its length is known: of the entry, and of what is inside it.
    outer: Vec<u8>,
    inner: Vec<u8>,
}

impl EntryEncoder {
    /// Appends the entry as field `number`.
    pub fn encode(&mut self, number: u32, entry: &Entry, out: &mut Vec<u8>) {
        self.outer.clear();
        text(1, &entry.id, &mut self.outer);
        self.id(2, &entry.spiffe_id);
        self.id(3, &entry.parent_id);
        for selector in &entry.selectors {
            self.message(4, |inner| {
                text(1, &selector.kind, inner);
                text(2, &selector.value, inner);
            });
        }
        integer(5, entry.x509_svid_ttl.into(), &mut self.outer);
        for trust_domain in &entry.federates_with {
            bytes(6, trust_domain.name().as_bytes(), &mut self.outer);
        }
        integer(7, entry.admin.into(), &mut self.outer);
        integer(8, entry.downstream.into(), &mut self.outer);
        integer(9, entry.expires_at, &mut self.outer);
        for name in &entry.dns_names {
            bytes(10, name.as_bytes(), &mut self.outer);
        }
        integer(11, entry.revision_number, &mut self.outer);
        integer(12, entry.store_svid.into(), &mut self.outer);
        integer(13, entry.jwt_svid_ttl.into(), &mut self.outer);
        text(14, &entry.hint, &mut self.outer);
        integer(15, entry.created_at, &mut self.outer);
        if let Some(AdditionalAttributes { disable_x509_svid_prefetch, jwt_svid_include_jti }) =
            entry.additional
        {
            self.message(16, |inner| {
                integer(1, disable_x509_svid_prefetch.into(), inner);
                integer(2, jwt_svid_include_jti.into(), inner);
            });
        }
        bytes(number, &self.outer, out);
    }

    fn id(&mut self, number: u32, id: &SpiffeId) {
        self.message(number, |inner| {
            text(1, id.trust_domain().name(), inner);
            text(2, id.path(), inner);
        });
    }

    fn message(&mut self, number: u32, fields: impl FnOnce(&mut Vec<u8>)) {
        self.inner.clear();
        fields(&mut self.inner);
        bytes(number, &self.inner, &mut self.outer);
    }
}

/// Of a field that has no default: elements of lists, and messages.
fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn text(number: u32, value: &str, out: &mut Vec<u8>) {
    if !value.is_empty() {
        bytes(number, value.as_bytes(), out);
    }
}

/// Of any signed type, and a truth value: they are one on the wire.
fn integer(number: u32, value: i64, out: &mut Vec<u8>) {
    if value != 0 {
        encode_key(number, WireType::Varint, out);
        encode_varint(value.cast_unsigned(), out);
    }
}

#[cfg(test)]
mod tests;
