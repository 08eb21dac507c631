use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use steeple_datastore::model::Selector;
use steeple_proto::steeple::agent::v1::WatchResponse;
use steeple_spiffe::TrustDomain;

use super::super::entry_to_proto;
use super::*;

/// Long enough for lengths of two bytes.
const TEXT: &str = ".{0,150}";

fn id() -> impl Strategy<Value = SpiffeId> {
    "spiffe://[a-z0-9.]{1,20}(/[a-zA-Z0-9]{1,80}){0,3}".prop_map(|id| id.parse().unwrap())
}

fn additional() -> impl Strategy<Value = AdditionalAttributes> {
    any::<(bool, bool)>().prop_map(|(disable_x509_svid_prefetch, jwt_svid_include_jti)| {
        AdditionalAttributes { disable_x509_svid_prefetch, jwt_svid_include_jti }
    })
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), 0..300_i64, any::<i64>()]
}

prop_compose! {
    fn entry()(
        (id, hint) in (TEXT, TEXT),
        (spiffe_id, parent_id) in (id(), id()),
        selectors in vec((TEXT, TEXT), 0..4),
        (x509_svid_ttl, jwt_svid_ttl) in (prop_oneof![Just(0), any::<i32>()], prop_oneof![Just(0), any::<i32>()]),
        federates_with in vec("[a-z0-9.]{1,200}", 0..3),
        (admin, downstream, store_svid) in any::<(bool, bool, bool)>(),
        dns_names in vec(TEXT, 0..3),
        (expires_at, revision_number, created_at) in (number(), number(), number()),
        additional in prop::option::of(additional()),
    ) -> Entry {
        Entry {
            id,
            spiffe_id,
            parent_id,
            selectors: selectors.into_iter().map(|(kind, value)| Selector { kind, value }).collect(),
            x509_svid_ttl,
            jwt_svid_ttl,
            federates_with: federates_with.iter().map(|name| TrustDomain::new(name).unwrap()).collect(),
            admin,
            downstream,
            expires_at,
            dns_names,
            revision_number,
            store_svid,
            hint,
            created_at,
            additional,
        }
    }
}

proptest! {
    #[test]
    fn the_bytes_are_those_of_the_message(entries in vec(entry(), 0..4)) {
        let (mut encoder, mut bytes) = (EntryEncoder::default(), Vec::new());
        for entry in &entries {
            encoder.encode(5, entry, &mut bytes);
        }
        let entries = entries.iter().map(entry_to_proto).collect();
        let message = WatchResponse { entries, ..WatchResponse::default() };
        prop_assert_eq!(bytes, message.encode_to_vec());
    }
}
