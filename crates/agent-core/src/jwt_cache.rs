//! JWT-SVIDs that can be handed out again.
//!
//! Key: SPIFFE ID and sorted audiences, as SPIRE's. An entry with `jwt_svid_include_jti` never comes here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use steeple_spiffe::SpiffeId;

use crate::budget::Uses;
use crate::{Millis, rotation};

/// A token that the server issued.
pub struct Token {
    pub token: String,
    pub key_id: String,
    pub issued_at: Millis,
    pub expires_at: Millis,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("len", &self.token.len())
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.token);
    }
}

/// Whom a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwtKey {
    spiffe_id: SpiffeId,
    audience: Vec<String>,
}

impl JwtKey {
    /// The order of audiences does not matter.
    pub fn new(spiffe_id: SpiffeId, mut audience: Vec<String>) -> Self {
        audience.sort();
        Self { spiffe_id, audience }
    }

    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// Sorted.
    pub fn audience(&self) -> &[String] {
        &self.audience
    }
}

/// What the cache has for a key.
#[derive(Debug)]
pub enum Found {
    /// Serve it.
    Fresh(Arc<Token>),
    /// Past its half-life but valid: get a new one, serve this one if the server does not answer.
    Ageing(Arc<Token>),
    Nothing,
}

/// See the [module](self). The least recently used token goes first; the size is a hard cap.
#[derive(Debug)]
pub struct JwtCache {
    max: usize,
    tokens: HashMap<Arc<JwtKey>, (Arc<Token>, u64)>,
    by_use: BTreeMap<u64, Arc<JwtKey>>,
    uses: Uses,
    bytes: usize,
}

impl JwtCache {
    pub fn new(max: usize) -> Self {
        Self { max, tokens: HashMap::new(), by_use: BTreeMap::new(), uses: Uses::default(), bytes: 0 }
    }

    /// Numbers its uses with others' (see [`crate::budget`]).
    #[must_use]
    pub fn counting(mut self, uses: Uses) -> Self {
        self.uses = uses;
        self
    }

    pub fn find(&mut self, key: &JwtKey, now: Millis) -> Found {
        let Some((token, used)) = self.tokens.get_mut(key) else { return Found::Nothing };
        if token.expires_at <= now {
            return Found::Nothing;
        }
        if let Some(key) = self.by_use.remove(used) {
            *used = self.uses.next();
            self.by_use.insert(*used, key);
        }
        if rotation::jwt_due(token.issued_at, token.expires_at, now) {
            Found::Ageing(token.clone())
        } else {
            Found::Fresh(token.clone())
        }
    }

    pub fn insert(&mut self, key: JwtKey, token: Arc<Token>) {
        if self.max == 0 {
            return;
        }
        let (key, used) = (Arc::new(key), self.uses.next());
        self.bytes += size(&key, &token);
        if let Some((old, used)) = self.tokens.insert(key.clone(), (token, used)) {
            self.bytes -= size(&key, &old);
            self.by_use.remove(&used);
        }
        self.by_use.insert(used, key);
        while self.tokens.len() > self.max && self.drop_idlest() {}
    }

    /// Holds tokens that an earlier process was given, unless they have ended.
    pub fn restore(&mut self, tokens: HashMap<JwtKey, Token>, now: Millis) {
        for (key, token) in tokens {
            if token.expires_at > now && self.tokens.len() < self.max && !self.holds(&key) {
                self.insert(key, Arc::new(token));
            }
        }
    }

    /// Every token held, also one that has ended.
    pub fn tokens(&self) -> impl Iterator<Item = (&JwtKey, &Arc<Token>)> {
        self.tokens.iter().map(|(key, (token, _))| (&**key, token))
    }

    pub fn holds(&self, key: &JwtKey) -> bool {
        self.tokens.contains_key(key)
    }

    /// When the token was last used that is dropped next.
    pub(crate) fn idlest(&self) -> Option<u64> {
        self.by_use.keys().next().copied()
    }

    /// Drops the token that was used longest ago. False if there is none.
    pub(crate) fn drop_idlest(&mut self) -> bool {
        let Some((_, key)) = self.by_use.pop_first() else { return false };
        if let Some((token, _)) = self.tokens.remove(&key) {
            self.bytes -= size(&key, &token);
        }
        true
    }

    /// Drops tokens signed by these keys (tainted authorities). Returns how many.
    pub fn drop_signed_by(&mut self, key_ids: &[&str]) -> usize {
        self.drop_where(|_, token| key_ids.contains(&token.key_id.as_str()))
    }

    /// Drops the tokens of these identities. Returns how many.
    pub fn drop_of(&mut self, ids: &HashSet<&SpiffeId>) -> usize {
        self.drop_where(|key, _| ids.contains(&key.spiffe_id))
    }

    /// Keeps only tokens signed by these keys, all that the bundle holds: nobody could verify the others. Returns how
    /// many went.
    pub fn keep_signed_by(&mut self, key_ids: &HashSet<&str>) -> usize {
        self.drop_where(|_, token| !key_ids.contains(token.key_id.as_str()))
    }

    pub fn clear(&mut self) {
        self.drop_where(|_, _| true);
    }

    fn drop_where(&mut self, gone: impl Fn(&JwtKey, &Token) -> bool) -> usize {
        let before = self.tokens.len();
        self.tokens.retain(|key, (token, used)| {
            let keep = !gone(key, token);
            if !keep {
                self.bytes -= size(key, token);
                self.by_use.remove(used);
            }
            keep
        });
        before - self.tokens.len()
    }

    /// Bytes of the tokens held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// A token and what it is for; both places share the latter.
fn size(key: &JwtKey, token: &Token) -> usize {
    let strings = key.audience.iter().map(|audience| size_of::<String>() + audience.len());
    let key = size_of::<JwtKey>() + key.spiffe_id.as_str().len() + strings.sum::<usize>();
    key + size_of::<Token>() + token.token.len() + token.key_id.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(audience: &[&str]) -> JwtKey {
        JwtKey::new(
            SpiffeId::parse("spiffe://example.org/a").unwrap(),
            audience.iter().map(ToString::to_string).collect(),
        )
    }

    fn token(kid: &str) -> Arc<Token> {
        Arc::new(Token { token: "t".into(), key_id: kid.into(), issued_at: 0, expires_at: 100 })
    }

    #[test]
    fn a_token_is_fresh_until_half_life_and_gone_when_it_expires() {
        let mut cache = JwtCache::new(2);
        cache.insert(key(&["a", "b"]), token("k"));
        assert!(matches!(cache.find(&key(&["b", "a"]), 49), Found::Fresh(_)));
        assert!(matches!(cache.find(&key(&["b", "a"]), 50), Found::Ageing(_)));
        assert!(matches!(cache.find(&key(&["b", "a"]), 100), Found::Nothing));
        assert!(matches!(cache.find(&key(&["a"]), 0), Found::Nothing));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = JwtCache::new(2);
        cache.insert(key(&["1"]), token("k"));
        cache.insert(key(&["2"]), token("k"));
        cache.find(&key(&["1"]), 0);
        cache.insert(key(&["3"]), token("k"));
        assert_eq!(cache.len(), 2);
        assert!(matches!(cache.find(&key(&["2"]), 0), Found::Nothing));
        assert!(matches!(cache.find(&key(&["1"]), 0), Found::Fresh(_)));
    }

    #[test]
    fn tokens_of_tainted_keys_go() {
        let mut cache = JwtCache::new(9);
        cache.insert(key(&["1"]), token("good"));
        cache.insert(key(&["2"]), token("bad"));
        assert_eq!(cache.drop_signed_by(&["bad"]), 1);
        assert!(matches!(cache.find(&key(&["1"]), 0), Found::Fresh(_)));
        cache.insert(key(&["3"]), token("good"));
        assert_eq!(cache.len(), cache.by_use.len());
        assert_eq!(cache.drop_of(&HashSet::from([&SpiffeId::parse("spiffe://example.org/b").unwrap()])), 0);
        assert_eq!(cache.drop_of(&HashSet::from([&key(&[]).spiffe_id])), 2);
        assert!(cache.is_empty() && cache.by_use.is_empty());
    }
}
