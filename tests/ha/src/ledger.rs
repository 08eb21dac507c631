//! What writers tried, what they were told, and what may therefore be stored.

use std::collections::BTreeMap;

/// A stored thing as text; `None` = absent.
type State = Option<String>;

/// Each key has one writer, which tries one thing at a time.
#[derive(Debug, Default)]
pub struct Ledger {
    keys: BTreeMap<String, Account>,
    acknowledged: u64,
    unanswered: u64,
}

#[derive(Debug)]
struct Account {
    /// The last acknowledged state, then what was tried since without an answer.
    possible: Vec<State>,
    creations: u64,
    deletions: u64,
}

impl Default for Account {
    fn default() -> Self {
        Self { possible: vec![None], creations: 0, deletions: 0 }
    }
}

impl Ledger {
    /// Before the call: it may take effect whatever becomes of the answer.
    pub fn attempt(&mut self, key: &str, state: State) {
        let account = self.keys.entry(key.to_owned()).or_default();
        match state {
            Some(_) => account.creations += 1,
            None => account.deletions += 1,
        }
        account.possible.push(state);
    }

    /// The last attempt took effect.
    pub fn acknowledge(&mut self, key: &str) {
        let account = self.keys.entry(key.to_owned()).or_default();
        account.possible.drain(..account.possible.len() - 1);
        self.acknowledged += 1;
    }

    /// Nobody knows whether the last attempt took effect.
    pub fn unanswered(&mut self) {
        self.unanswered += 1;
    }

    /// How many writes were acknowledged, and how many had no answer.
    pub fn counts(&self) -> (u64, u64) {
        (self.acknowledged, self.unanswered)
    }

    /// What is stored but cannot be, and what must be but is not.
    pub fn differences(&self, stored: &BTreeMap<String, String>) -> Vec<String> {
        let lost = self.keys.iter().filter_map(|(key, account)| {
            let found = stored.get(key);
            let fits = account.possible.iter().any(|state| state.as_ref() == found);
            (!fits).then(|| format!("{key}: stored {found:?}, possible {:?}", account.possible))
        });
        let strange = stored.keys().filter(|key| !self.keys.contains_key(*key));
        lost.chain(strange.map(|key| format!("{key}: stored, and nobody wrote it"))).collect()
    }

    /// Whether a thing may have come and gone so many times.
    pub fn explains(&self, key: &str, came: u64, went: u64) -> bool {
        self.keys.get(key).is_some_and(|account| came <= account.creations && went <= account.deletions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_what_was_acknowledged_last_or_tried_since_may_be_stored() {
        let mut ledger = Ledger::default();
        ledger.attempt("a", Some("1".into()));
        ledger.acknowledge("a");
        ledger.attempt("a", Some("2".into()));
        ledger.unanswered();
        assert!(ledger.differences(&stored(&[("a", "1")])).is_empty());
        assert!(ledger.differences(&stored(&[("a", "2")])).is_empty());
        assert_eq!(ledger.differences(&stored(&[])).len(), 1);
        ledger.attempt("a", None);
        ledger.acknowledge("a");
        assert_eq!(ledger.differences(&stored(&[("a", "2")])).len(), 1);
        assert!(ledger.differences(&stored(&[])).is_empty());
        assert_eq!(ledger.differences(&stored(&[("b", "1")])).len(), 1);
        assert_eq!(ledger.counts(), (2, 1));
    }

    #[test]
    fn comings_and_goings_need_a_write() {
        let mut ledger = Ledger::default();
        ledger.attempt("a", Some("1".into()));
        assert!(ledger.explains("a", 1, 0));
        assert!(!ledger.explains("a", 2, 0) && !ledger.explains("a", 1, 1) && !ledger.explains("b", 1, 0));
    }
}
