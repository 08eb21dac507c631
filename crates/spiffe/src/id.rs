//! SPIFFE IDs and trust domains (SPIFFE-ID §2).
//!
//! Parsing is strict and canonical: the scheme is `spiffe`, the trust domain is lower case. An ID in
//! another letter case can be brought to that form with [`SpiffeId::parse_ignoring_case`] (§2.4).

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest SPIFFE ID that is ever made, in bytes of the whole URI (SPIFFE-ID §2.3). Longer ones that
/// others made are read.
pub const MAX_ID_LEN: usize = 2048;

/// Longest trust domain name the standard foresees, in bytes (SPIFFE-ID §2.3). SPIRE only warns beyond it.
pub const MAX_TRUST_DOMAIN_LEN: usize = 255;

const SCHEME: &str = "spiffe://";

/// Why a string is no SPIFFE ID, path or trust domain. The texts are go-spiffe's: they reach users
/// through API errors and scripts match on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("cannot be empty")]
    Empty,
    #[error("scheme is missing or invalid")]
    WrongScheme,
    #[error("trust domain is missing")]
    MissingTrustDomain,
    #[error(
        "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"
    )]
    BadTrustDomainChar,
    #[error("path must have a leading slash")]
    NoLeadingSlash,
    #[error("path cannot have a trailing slash")]
    TrailingSlash,
    #[error("path cannot contain empty segments")]
    EmptySegment,
    #[error("path cannot contain dot segments")]
    DotSegment,
    #[error("path segment characters are limited to letters, numbers, dots, dashes, and underscores")]
    BadPathSegmentChar,
    /// Only when an ID is made, never when one is read (SPIFFE-ID §2.3).
    #[error("SPIFFE ID is longer than {MAX_ID_LEN} bytes")]
    TooLong,
}

/// The name of a trust domain, e.g. `example.org` (SPIFFE-ID §2.1). Cheap to clone.
#[derive(Clone)]
pub struct TrustDomain {
    /// Starts with `spiffe://<name>`; shared with the ID it was taken from.
    text: Arc<str>,
    end: usize,
}

impl TrustDomain {
    /// Reads a trust domain name (`example.org`) or the trust domain of a SPIFFE ID
    /// (`spiffe://example.org/any/path`).
    pub fn new(id_or_name: &str) -> Result<Self, IdError> {
        if id_or_name.is_empty() {
            return Err(IdError::MissingTrustDomain);
        }
        if id_or_name.contains(":/") {
            return Ok(SpiffeId::parse(id_or_name)?.trust_domain());
        }
        Self::from_name(id_or_name)
    }

    /// Reads a trust domain name only; an ID is refused.
    pub fn from_name(name: &str) -> Result<Self, IdError> {
        if name.is_empty() {
            return Err(IdError::MissingTrustDomain);
        }
        if !name.bytes().all(is_trust_domain_char) {
            return Err(IdError::BadTrustDomainChar);
        }
        let text: Arc<str> = format!("{SCHEME}{name}").into();
        Ok(Self { end: text.len(), text })
    }

    /// `example.org`
    pub fn name(&self) -> &str {
        &self.text[SCHEME.len()..self.end]
    }

    /// The ID of the trust domain itself, without a path.
    pub fn id(&self) -> SpiffeId {
        if self.end == self.text.len() {
            return SpiffeId { text: self.text.clone(), path_at: self.end };
        }
        SpiffeId { text: self.text[..self.end].into(), path_at: self.end }
    }

    /// `spiffe://example.org`
    pub fn id_string(&self) -> String {
        self.as_id_str().to_owned()
    }

    /// `spiffe://example.org`, borrowed.
    pub fn as_id_str(&self) -> &str {
        &self.text[..self.end]
    }

    /// The name is longer than SPIFFE-ID §2.3 foresees. SPIRE accepts such names with a warning.
    pub fn is_overlong(&self) -> bool {
        self.name().len() > MAX_TRUST_DOMAIN_LEN
    }
}

/// A SPIFFE ID, e.g. `spiffe://example.org/ns/default` (SPIFFE-ID §2). Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    path_at: usize,
}

impl SpiffeId {
    /// Reads an ID in its canonical form.
    pub fn parse(id: &str) -> Result<Self, IdError> {
        let path_at = check_id(id)?;
        Ok(Self { text: id.into(), path_at })
    }

    /// Reads an ID whose scheme and trust domain may be in any letter case and makes it canonical
    /// (SPIFFE-ID §2.4: scheme and trust domain compare without case, paths with it).
    pub fn parse_ignoring_case(id: &str) -> Result<Self, IdError> {
        let host_end = id
            .find("://")
            .map_or(id.len(), |at| id[at + 3..].find('/').map_or(id.len(), |slash| at + 3 + slash));
        let mut canonical = id.to_owned();
        canonical[..host_end].make_ascii_lowercase();
        Self::parse(&canonical)
    }

    /// Reads an ID from a URI as a URI library would hand it out: the scheme in any letter case, the rest
    /// as in [`SpiffeId::parse`].
    pub fn from_uri(uri: &str) -> Result<Self, IdError> {
        match uri.get(..SCHEME.len()) {
            Some(scheme) if scheme != SCHEME && scheme.eq_ignore_ascii_case(SCHEME) => {
                Self::parse(&format!("{SCHEME}{}", &uri[SCHEME.len()..]))
            }
            _ => Self::parse(uri),
        }
    }

    /// Makes the ID of a path in a trust domain. The path is empty or starts with a slash. Refuses IDs
    /// longer than [`MAX_ID_LEN`].
    pub fn from_parts(trust_domain: &TrustDomain, path: &str) -> Result<Self, IdError> {
        validate_path(path)?;
        let root = trust_domain.as_id_str();
        if root.len() + path.len() > MAX_ID_LEN {
            return Err(IdError::TooLong);
        }
        if path.is_empty() {
            return Ok(trust_domain.id());
        }
        Ok(Self { text: format!("{root}{path}").into(), path_at: root.len() })
    }

    /// Makes an ID of path segments, none of which may hold a slash.
    pub fn from_segments(trust_domain: &TrustDomain, segments: &[&str]) -> Result<Self, IdError> {
        let mut path = String::new();
        for segment in segments {
            validate_path_segment(segment)?;
            path.push('/');
            path.push_str(segment);
        }
        Self::from_parts(trust_domain, &path)
    }

    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain { text: self.text.clone(), end: self.path_at }
    }

    /// The path with its leading slash, or nothing for the ID of a trust domain.
    pub fn path(&self) -> &str {
        &self.text[self.path_at..]
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn is_member_of(&self, trust_domain: &TrustDomain) -> bool {
        &self.text[..self.path_at] == trust_domain.as_id_str()
    }
}

/// Checks a path: empty, or slash-separated segments (SPIFFE-ID §2.2).
pub fn validate_path(path: &str) -> Result<(), IdError> {
    if path.is_empty() {
        return Ok(());
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Err(IdError::NoLeadingSlash);
    };
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if segment.is_empty() {
            return Err(if last { IdError::TrailingSlash } else { IdError::EmptySegment });
        }
        validate_path_segment(segment)?;
    }
    Ok(())
}

/// Checks one path segment (SPIFFE-ID §2.2).
pub fn validate_path_segment(segment: &str) -> Result<(), IdError> {
    match segment {
        "" => Err(IdError::EmptySegment),
        "." | ".." => Err(IdError::DotSegment),
        _ if segment.bytes().all(is_path_segment_char) => Ok(()),
        _ => Err(IdError::BadPathSegmentChar),
    }
}

/// Checks a whole ID and returns where its path starts.
fn check_id(id: &str) -> Result<usize, IdError> {
    if id.is_empty() {
        return Err(IdError::Empty);
    }
    let Some(rest) = id.strip_prefix(SCHEME) else {
        return Err(IdError::WrongScheme);
    };
    let name_len = rest.find('/').unwrap_or(rest.len());
    if !rest.as_bytes()[..name_len].iter().copied().all(is_trust_domain_char) {
        return Err(IdError::BadTrustDomainChar);
    }
    if name_len == 0 {
        return Err(IdError::MissingTrustDomain);
    }
    validate_path(&rest[name_len..])?;
    Ok(SCHEME.len() + name_len)
}

fn is_trust_domain_char(c: u8) -> bool {
    matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_')
}

fn is_path_segment_char(c: u8) -> bool {
    matches!(c, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_')
}

impl PartialEq for TrustDomain {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for TrustDomain {}

impl PartialOrd for TrustDomain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TrustDomain {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl Hash for TrustDomain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

// Maps keyed by trust domain can be asked with a plain name.
impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        self.name()
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.name())
    }
}

impl FromStr for TrustDomain {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        Self::new(s)
    }
}

impl TryFrom<&str> for TrustDomain {
    type Error = IdError;

    fn try_from(s: &str) -> Result<Self, IdError> {
        Self::new(s)
    }
}

impl Serialize for TrustDomain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl AsRef<str> for SpiffeId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.as_str())
    }
}

impl FromStr for SpiffeId {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        Self::parse(s)
    }
}

impl TryFrom<&str> for SpiffeId {
    type Error = IdError;

    fn try_from(s: &str) -> Result<Self, IdError> {
        Self::parse(s)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
