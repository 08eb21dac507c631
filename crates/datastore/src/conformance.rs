//! The suite every [`Datastore`](crate::Datastore) runs: functions that take a factory of fresh stores and panic where
//! the store is wrong. [`conformance!`](crate::conformance!) makes a test of each.
//!
//! ```ignore
//! fn fresh() -> steeple_datastore::conformance::Fresh { … }
//! steeple_datastore::conformance!(crate::fresh);
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test suite: panicking is how it fails"
)]

pub mod agents;
pub mod bundles;
pub mod concurrent;
pub mod entries;
pub mod federation;
pub mod fixtures;
pub mod log;
pub mod random;
mod replica;
pub mod tokens;

use std::any::Any;
use std::sync::Arc;

use crate::Datastore;

pub use replica::Replica;

/// An empty store, and what must live as long as it (a folder, a server).
pub struct Fresh {
    pub store: Arc<dyn Datastore>,
    pub keep: Box<dyn Any + Send + Sync>,
}

impl Fresh {
    pub fn new(store: impl Datastore, keep: impl Any + Send + Sync) -> Self {
        Self { store: Arc::new(store), keep: Box::new(keep) }
    }
}

/// Makes a store.
pub type Factory = fn() -> Fresh;

/// Makes a test of each function of the suite. The argument is the absolute path of a [`Factory`]. The calling crate
/// needs tokio with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! conformance {
    ($fresh:path) => {
        $crate::conformance! { @ $fresh;
            entries:
                created_as_given, similar_is_answered, ids_are_unique, refusals, federates_with_needs_a_bundle,
                a_failed_item_is_alone, update_takes_the_mask, update_refusals, deleted_and_pruned,
                deleted_together,
                filters, selector_matches, federates_with_matches, pages, many_at_once;
            agents:
                put_fetch_update, replaced_on_attestation, renewed_serial_is_promoted, a_ban_stays, filters, deleted_with_alias_entries, pruned, pages;
            tokens:
                single_use, an_agent_comes_with_its_token, refusals, pruned, journals;
            bundles:
                created_updated_set, appended, pruned, delete_modes, tainted_and_revoked, pages;
            federation:
                relationships_come_and_go, bundles_of_relationships, refreshed_bundles, pages;
            log:
                every_write_is_logged, rotations, failures_are_not_logged, trimmed, bounds, head_is_watched;
            concurrent:
                one_of_a_thousand_takes_the_token, no_gaps, follower_keeps_up;
            random:
                agrees_with_the_model;
        }
    };
    (@ $fresh:path; $($module:ident: $($case:ident),* $(,)?;)*) => {
        $(
            mod $module {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        $crate::conformance::$module::$case($fresh).await;
                    }
                )*
            }
        )*
    };
}
