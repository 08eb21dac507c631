//! Keys nobody asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::Pos;

/// Whether SPIRE refuses to start when a block has a key it does not know (`spire.md` §1.1 has the list).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    Strict,
    Lax,
}

/// A key that no option reads. `Display`: `file:line:column: unknown key "x" in section`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    pub(crate) file: Arc<str>,
    pub section: String,
    pub key: String,
    pub pos: Pos,
    /// SPIRE would not start. Otherwise SPIRE does not notice: the block is lax, the key is quoted (in HCL), or it is
    /// a labelled block that is not its parent's first item.
    pub refused: bool,
}

impl UnknownKey {
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: unknown key {:?} in {}", self.file, self.pos, self.key, self.section)
    }
}

/// The refused keys of one section, as SPIRE logs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownSection {
    /// SPIRE's log field `section`.
    pub section: String,
    /// SPIRE's log field `keys`: sorted, joined with commas.
    pub keys: String,
}

/// What a whole configuration has too much.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnknownKeys {
    keys: Vec<UnknownKey>,
}

impl UnknownKeys {
    pub(crate) fn push(&mut self, key: UnknownKey) {
        self.keys.push(key);
    }

    /// In file order.
    pub fn refused(&self) -> Vec<&UnknownKey> {
        self.with(true)
    }

    /// In file order.
    pub fn overlooked(&self) -> Vec<&UnknownKey> {
        self.with(false)
    }

    /// One entry for each section with refused keys, in file order.
    pub fn sections(&self) -> Vec<UnknownSection> {
        let mut sections: Vec<(&str, BTreeSet<&str>)> = Vec::new();
        for key in self.refused() {
            match sections.iter_mut().find(|(section, _)| *section == key.section) {
                Some((_, keys)) => {
                    keys.insert(&key.key);
                }
                None => sections.push((&key.section, BTreeSet::from([key.key.as_str()]))),
            }
        }
        let joined = |keys: BTreeSet<&str>| keys.into_iter().collect::<Vec<_>>().join(",");
        sections
            .into_iter()
            .map(|(section, keys)| UnknownSection { section: section.to_owned(), keys: joined(keys) })
            .collect()
    }

    fn with(&self, refused: bool) -> Vec<&UnknownKey> {
        let mut keys: Vec<_> = self.keys.iter().filter(|k| k.refused == refused).collect();
        keys.sort_by_key(|k| k.pos);
        keys
    }
}
