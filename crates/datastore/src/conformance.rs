//! The suite every [`crate::Datastore`] runs.
