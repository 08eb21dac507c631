//! The Datastore on SQL: SPIRE's schema in place, plus the change log.
