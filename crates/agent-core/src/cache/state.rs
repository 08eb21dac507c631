//! How the X.509-SVID of one entry stands, for those who want to know why.

use std::sync::Arc;

use super::{Cache, Svid};
use crate::Millis;

/// See [`Cache::svid_state`].
#[derive(Clone, Debug)]
pub struct SvidState {
    /// None yet, or none any more.
    pub svid: Option<Arc<Svid>>,
    /// When it is replaced, if nothing happens before.
    pub due: Millis,
    /// Why the last try to have it signed failed, and when the next one is.
    pub error: Option<Arc<str>>,
    pub retry_at: Millis,
}

impl Cache {
    /// The state of the entry with this id.
    pub fn svid_state(&self, id: &str) -> Option<SvidState> {
        let record = self.records.get(id)?;
        Some(SvidState {
            svid: record.svid.clone(),
            due: record.due,
            error: record.error.clone(),
            retry_at: record.retry_at,
        })
    }
}
