//! What a group of workloads receives.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use steeple_spiffe::bundle::Bundle;
use zeroize::Zeroizing;

use crate::entry::Entry;

/// An X.509-SVID with its key, in the forms the Workload API hands out.
pub struct Svid {
    /// Concatenated DER, leaf first.
    pub chain: Bytes,
    /// PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
    /// Unix seconds.
    pub not_before: i64,
    pub not_after: i64,
    /// The key id of the authority at the end of the chain: an SVID is replaced when that is tainted.
    pub authority_key_id: Box<[u8]>,
}

impl Svid {
    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.chain.len() + self.key.len() + self.authority_key_id.len()
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("chain", &self.chain.len())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// One identity of a workload.
#[derive(Clone, Debug)]
pub struct Identity {
    pub entry: Arc<Entry>,
    pub svid: Arc<Svid>,
}

/// Identities and bundles, immutable, shared by every group that receives the same ones. Its wire forms are made by
/// whoever needs one first.
#[derive(Debug, Default)]
pub struct Content {
    /// By entry id, hints unique.
    pub identities: Vec<Identity>,
    /// The own trust domain's; none before the first sync.
    pub bundle: Option<Arc<Bundle>>,
    pub federated: Vec<Arc<Bundle>>,
    x509_svid: OnceLock<Bytes>,
    x509_bundles: OnceLock<Bytes>,
    jwt_bundles: OnceLock<Bytes>,
    wit_bundles: OnceLock<Bytes>,
}

impl Content {
    /// The encoded X509SVIDResponse.
    pub fn x509_svid(&self, encode: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.x509_svid.get_or_init(|| encode(self))
    }

    /// The encoded X509BundlesResponse.
    pub fn x509_bundles(&self, encode: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.x509_bundles.get_or_init(|| encode(self))
    }

    /// The encoded JWTBundlesResponse.
    pub fn jwt_bundles(&self, encode: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.jwt_bundles.get_or_init(|| encode(self))
    }

    /// The encoded WITBundlesResponse.
    pub fn wit_bundles(&self, encode: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.wit_bundles.get_or_init(|| encode(self))
    }
}

/// The newest state of a group.
#[derive(Clone, Debug, Default)]
pub struct Update {
    pub content: Arc<Content>,
    /// The entries it is entitled to, with or without an SVID so far.
    pub matched: Arc<[Arc<Entry>]>,
    /// Some SVIDs are being signed for the first time.
    pub pending: bool,
    /// Why an SVID is missing.
    pub error: Option<Arc<str>>,
}

impl Update {
    pub(super) fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.content, &other.content)
            && self.pending == other.pending
            && self.error == other.error
            && self.matched == other.matched
    }
}

/// Finds the [`Content`] that is already there for the same identities and bundles.
#[derive(Debug, Default)]
pub(super) struct Interner {
    contents: HashMap<Vec<usize>, Weak<Content>>,
    /// Kept for whoever asks next, newest last: most callers fetch and leave, and those of one kind ask for the same.
    recent: VecDeque<Arc<Content>>,
    /// So many contents make a sweep worth it.
    sweep_at: usize,
}

/// Contents that are kept although nobody holds them.
const RECENT: usize = 8;
const SWEEP_FROM: usize = 64;

impl Interner {
    pub fn intern(
        &mut self,
        identities: Vec<Identity>,
        bundle: Option<Arc<Bundle>>,
        federated: Vec<Arc<Bundle>>,
    ) -> Arc<Content> {
        // Addresses identify: as long as the content lives it holds what they point to.
        let mut key = Vec::with_capacity(identities.len() * 2 + federated.len() + 2);
        for identity in &identities {
            key.push(Arc::as_ptr(&identity.entry) as usize);
            key.push(Arc::as_ptr(&identity.svid) as usize);
        }
        key.push(0);
        key.push(bundle.as_ref().map_or(0, |bundle| Arc::as_ptr(bundle) as usize));
        key.extend(federated.iter().map(|bundle| Arc::as_ptr(bundle) as usize));
        if let Some(content) = self.contents.get(&key).and_then(Weak::upgrade) {
            return content;
        }
        if self.contents.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.sweep();
        }
        let content = Arc::new(Content { identities, bundle, federated, ..Content::default() });
        self.contents.insert(key, Arc::downgrade(&content));
        content
    }

    /// The next who receives the same shares this one, even if nobody holds it meanwhile.
    pub fn keep(&mut self, content: Arc<Content>) {
        if self.recent.iter().any(|kept| Arc::ptr_eq(kept, &content)) {
            return;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(content);
    }

    /// What is kept for the next: nothing of it may outlast a change.
    pub fn forget_recent(&mut self) {
        self.recent.clear();
    }

    /// Forgets contents that nobody holds.
    fn sweep(&mut self) {
        self.contents.retain(|_, content| content.strong_count() > 0);
        self.sweep_at = self.contents.len() * 2;
    }
}
