//! What a frame holds: one message of changes, protobuf. Entries and bundles are as the server sends them.

use prost::Message as _;
use steeple_agent_core::cache::Svid;
use steeple_agent_core::entry::{Entry, Selector};
use steeple_agent_core::jwt_cache::{JwtKey, Token};
use steeple_agent_core::snapshot::{HeldSvid, Increment, KeptSvid, Snapshot};
use steeple_proto::spire::api::types;
use steeple_spiffe::bundle::{Bundle, JwtAuthority};
use steeple_spiffe::{SpiffeId, TrustDomain};
use zeroize::{Zeroize as _, Zeroizing};

use crate::convert;

/// A frame is closed once it holds this much.
const FRAME: usize = 256 * 1024;
/// Room for the seal's tag, so that a plain frame is never moved.
const TAG: usize = 16;

#[derive(Clone, PartialEq, prost::Message)]
struct Changes {
    /// In the last frame of what changed together: a position without its entries would hide them for good.
    #[prost(message, optional, tag = "1")]
    position: Option<Position>,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<types::Entry>,
    #[prost(string, repeated, tag = "3")]
    removed_entries: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    bundles: Vec<types::Bundle>,
    #[prost(string, repeated, tag = "5")]
    removed_bundles: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    svids: Vec<X509>,
    #[prost(string, repeated, tag = "7")]
    removed_svids: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    tokens: Vec<Jwt>,
    #[prost(message, repeated, tag = "9")]
    removed_tokens: Vec<Jwt>,
    /// The last frame of the base.
    #[prost(bool, tag = "10")]
    ends_base: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Position {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(string, tag = "2")]
    log_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct X509 {
    #[prost(string, tag = "1")]
    entry_id: String,
    #[prost(string, tag = "2")]
    spiffe_id: String,
    #[prost(bytes = "bytes", tag = "3")]
    chain: bytes::Bytes,
    /// PKCS#8. Wiped by whoever made the message.
    #[prost(bytes = "vec", tag = "4")]
    key: Vec<u8>,
    #[prost(int64, tag = "5")]
    not_before: i64,
    #[prost(int64, tag = "6")]
    not_after: i64,
    #[prost(bytes = "vec", tag = "7")]
    authority_key_id: Vec<u8>,
    #[prost(int64, tag = "8")]
    due: i64,
    #[prost(bool, tag = "9")]
    stale: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Jwt {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(string, repeated, tag = "2")]
    audience: Vec<String>,
    /// Wiped as [`X509::key`] is.
    #[prost(string, tag = "3")]
    token: String,
    #[prost(string, tag = "4")]
    key_id: String,
    #[prost(int64, tag = "5")]
    issued_at: i64,
    #[prost(int64, tag = "6")]
    expires_at: i64,
}

/// Gives each frame that `increment` makes to `emit`.
pub(super) fn encode<E>(
    increment: &Increment,
    is_base: bool,
    mut emit: impl FnMut(Zeroizing<Vec<u8>>) -> Result<(), E>,
) -> Result<(), E> {
    let mut frame = Frame::default();
    let text = |id: &std::sync::Arc<str>| id.to_string();
    frame.changes.removed_entries = increment.removed_entries.iter().map(text).collect();
    frame.changes.removed_svids = increment.removed_svids.iter().map(text).collect();
    frame.changes.removed_bundles =
        increment.removed_bundles.iter().map(|domain| domain.name().to_owned()).collect();
    for key in &increment.removed_tokens {
        frame.changes.removed_tokens.push(jwt(key, None));
    }
    for bundle in &increment.bundles {
        frame.add(bundle_to_proto(bundle), |changes| &mut changes.bundles, &mut emit)?;
    }
    for entry in &increment.entries {
        frame.add(entry_to_proto(entry), |changes| &mut changes.entries, &mut emit)?;
    }
    for held in &increment.svids {
        frame.add(x509(held), |changes| &mut changes.svids, &mut emit)?;
    }
    for (key, token) in &increment.tokens {
        frame.add(jwt(key, Some(token)), |changes| &mut changes.tokens, &mut emit)?;
    }
    frame.changes.position = increment
        .position
        .as_ref()
        .map(|(revision, log_id)| Position { revision: *revision, log_id: log_id.clone() });
    frame.changes.ends_base = is_base;
    emit(frame.finish())
}

/// What is being gathered.
#[derive(Default)]
struct Frame {
    changes: Changes,
    size: usize,
}

impl Frame {
    fn add<T: prost::Message, E>(
        &mut self,
        item: T,
        to: impl FnOnce(&mut Changes) -> &mut Vec<T>,
        emit: &mut impl FnMut(Zeroizing<Vec<u8>>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.size += item.encoded_len();
        to(&mut self.changes).push(item);
        if self.size >= FRAME { emit(self.finish()) } else { Ok(()) }
    }

    fn finish(&mut self) -> Zeroizing<Vec<u8>> {
        let mut changes = std::mem::take(&mut self.changes);
        self.size = 0;
        let mut bytes = Vec::with_capacity(changes.encoded_len() + TAG);
        changes.encode_raw(&mut bytes);
        wipe(&mut changes);
        Zeroizing::new(bytes)
    }
}

fn wipe(changes: &mut Changes) {
    changes.svids.iter_mut().for_each(|svid| svid.key.zeroize());
    changes.tokens.iter_mut().for_each(|token| token.token.zeroize());
}

/// Puts the changes of a frame into `snapshot`. True if it is the last of the base.
pub(super) fn apply(frame: &[u8], snapshot: &mut Snapshot) -> Result<bool, String> {
    let mut changes = Changes::decode(frame).map_err(|error| error.to_string())?;
    let ends_base = changes.ends_base;
    let applied = apply_changes(&mut changes, snapshot);
    wipe(&mut changes);
    applied.map(|()| ends_base)
}

fn apply_changes(changes: &mut Changes, snapshot: &mut Snapshot) -> Result<(), String> {
    for id in &changes.removed_entries {
        snapshot.entries.remove(&**id);
    }
    for id in &changes.removed_svids {
        snapshot.svids.remove(&**id);
    }
    for name in &changes.removed_bundles {
        let domain = TrustDomain::new(name).map_err(|error| error.to_string())?;
        snapshot.bundles.remove(&domain);
    }
    for token in &mut changes.removed_tokens {
        snapshot.tokens.remove(&jwt_key(token)?);
    }
    for proto in changes.bundles.drain(..) {
        let bundle = convert::bundle(proto).map_err(|error| error.to_string())?;
        snapshot.bundles.insert(bundle.trust_domain.clone(), bundle);
    }
    for proto in changes.entries.drain(..) {
        let entry = convert::entry(proto).map_err(|error| error.to_string())?;
        snapshot.entries.insert(entry.id.clone(), entry);
    }
    for svid in &mut changes.svids {
        let kept = KeptSvid {
            spiffe_id: SpiffeId::parse(&svid.spiffe_id).map_err(|error| error.to_string())?,
            svid: Svid {
                // Its own bytes: what it is cut from holds keys.
                chain: bytes::Bytes::copy_from_slice(&svid.chain),
                key: Zeroizing::new(std::mem::take(&mut svid.key)),
                not_before: svid.not_before,
                not_after: svid.not_after,
                authority_key_id: std::mem::take(&mut svid.authority_key_id).into(),
            },
            due: svid.due,
            stale: svid.stale,
        };
        snapshot.svids.insert(svid.entry_id.as_str().into(), kept);
    }
    for token in &mut changes.tokens {
        let key = jwt_key(token)?;
        let kept = Token {
            token: std::mem::take(&mut token.token),
            key_id: std::mem::take(&mut token.key_id),
            issued_at: token.issued_at,
            expires_at: token.expires_at,
        };
        snapshot.tokens.insert(key, kept);
    }
    if let Some(position) = changes.position.take() {
        (snapshot.revision, snapshot.log_id) = (position.revision, position.log_id);
    }
    Ok(())
}

fn x509(held: &HeldSvid) -> X509 {
    X509 {
        entry_id: held.entry.id.to_string(),
        spiffe_id: held.entry.spiffe_id.to_string(),
        chain: held.svid.chain.clone(),
        key: held.svid.key.to_vec(),
        not_before: held.svid.not_before,
        not_after: held.svid.not_after,
        authority_key_id: held.svid.authority_key_id.to_vec(),
        due: held.due,
        stale: held.stale,
    }
}

fn jwt(key: &JwtKey, token: Option<&Token>) -> Jwt {
    let mut jwt =
        Jwt { spiffe_id: key.spiffe_id().to_string(), audience: key.audience().to_vec(), ..Jwt::default() };
    if let Some(token) = token {
        jwt.token.clone_from(&token.token);
        jwt.key_id.clone_from(&token.key_id);
        (jwt.issued_at, jwt.expires_at) = (token.issued_at, token.expires_at);
    }
    jwt
}

fn jwt_key(jwt: &mut Jwt) -> Result<JwtKey, String> {
    let id = SpiffeId::parse(&jwt.spiffe_id).map_err(|error| error.to_string())?;
    Ok(JwtKey::new(id, std::mem::take(&mut jwt.audience)))
}

fn entry_to_proto(entry: &Entry) -> types::Entry {
    let selector = |selector: &Selector| {
        let (kind, value) = selector.as_str().split_once(':').unwrap_or_default();
        types::Selector { r#type: kind.to_owned(), value: value.to_owned() }
    };
    types::Entry {
        id: entry.id.to_string(),
        spiffe_id: Some(convert::id_to_proto(&entry.spiffe_id)),
        selectors: entry.selectors.iter().map(selector).collect(),
        x509_svid_ttl: entry.x509_svid_ttl,
        jwt_svid_ttl: entry.jwt_svid_ttl,
        federates_with: entry.federates_with.iter().map(|domain| domain.name().to_owned()).collect(),
        dns_names: entry.dns_names.clone(),
        hint: entry.hint.clone(),
        expires_at: entry.expires_at,
        revision_number: entry.revision_number,
        created_at: entry.created_at,
        admin: entry.admin,
        downstream: entry.downstream,
        store_svid: entry.store_svid,
        additional_attributes: Some(types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: entry.disable_x509_svid_prefetch,
            jwt_svid_include_jti: entry.jwt_svid_include_jti,
        }),
        ..types::Entry::default()
    }
}

fn bundle_to_proto(bundle: &Bundle) -> types::Bundle {
    let jwt = |key: &JwtAuthority| types::JwtKey {
        public_key: key.public_key.spki_der().to_vec(),
        key_id: key.key_id.clone(),
        expires_at: key.expires_at,
        tainted: key.tainted,
    };
    let wit = |key: &JwtAuthority| types::WitKey {
        public_key: key.public_key.spki_der().to_vec(),
        key_id: key.key_id.clone(),
        expires_at: key.expires_at,
        tainted: key.tainted,
    };
    let x509_authorities = bundle.x509_authorities.iter().map(|authority| types::X509Certificate {
        asn1: authority.certificate.der().to_vec(),
        tainted: authority.tainted,
    });
    types::Bundle {
        trust_domain: bundle.trust_domain.name().to_owned(),
        x509_authorities: x509_authorities.collect(),
        jwt_authorities: bundle.jwt_authorities.iter().map(jwt).collect(),
        wit_authorities: bundle.wit_authorities.iter().map(wit).collect(),
        refresh_hint: bundle.refresh_hint.unwrap_or_default(),
        sequence_number: bundle.sequence_number,
    }
}
