//! The [`Datastore`](steeple_datastore::Datastore) on SQL: SPIRE's schema (version 25) in place, plus the change
//! log in tables of our own.
//!
//! | module | |
//! |---|---|
//! | [`SqlStore`] | the store: SQLite, PostgreSQL, MySQL and MariaDB |
//! | [`SqliteConfig`], [`NetworkConfig`] | SPIRE's `connection_string` forms |
//! | `conn` | the small layer below which an engine differs; SQL is written with `?` |
//! | `schema` | SPIRE's tables and ours, versions |
//! | `writer`, `readers` | one thread writes, in batches; a few connections read |
//! | `notify` | PostgreSQL's LISTEN and NOTIFY |
//! | `changes` | the change log |
//! | `migrations` | schemas of older releases become this one's |
//! | [`backup`], [`restore`] | one state in one file, from any engine to any |
//! | `watermark` | noticing that the database was restored from a copy |
//! | `foreign` | what a SPIRE server on the same database wrote |
//! | `rows`, `selectors` | bulk reads, set comparison |
//! | `entries`, `agents`, `bundles`, `tokens`, `journals` | the tables |
//!
//! # Durability
//! A write is acknowledged after its commit, and commits are synced to disk (`synchronous=FULL`, in WAL mode): it
//! survives SIGKILL and, as far as the disk keeps its word, a power loss. Writes that wait together are committed
//! together, so that the price of a sync is shared.
//!
//! # Several servers on one SQLite file
//! is safe: each write takes SQLite's write lock (`BEGIN IMMEDIATE`, waiting up to five seconds), each revision is
//! taken under it. A server looks for what others committed five times a second and before each of its own writes.
//! A real SPIRE server on the same file is noticed by the same look: its rows in `registered_entries_events`
//! and `attested_node_entries_events`, and changed rows of `bundles`, become revisions of the log. We write the event
//! rows too, so SPIRE's events-based cache sees our writes.
//!
//! # Several servers on one database server
//! Each write transaction first locks the row of `steeple_meta`: servers write one after another. PostgreSQL tells the others
//! of each commit (NOTIFY); elsewhere, and for a SPIRE server's writes, one row is asked for every two and a half seconds, on MySQL 25 times a
//! second while something happens. A connection that breaks is made again; a transaction that the engine gave up runs again;
//! one whose commit was not answered is reported as unknown.
//!
//! # Restored databases
//! Beside the file stands `<database>-steeple`, which notes the log's id and how far it had come. A database that is behind
//! its note, or has none, was restored: its log goes on under a new id, past the noted revision, and whoever followed the
//! old one takes a snapshot. Losing the note costs that once, nothing else. On a database server the log notes where it was
//! written (`watermark`): a restored copy, and a standby that took over, start a new log in the same way, as does a database that is
//! found behind what this server has seen.
//!
//! # Differences from SPIRE's store
//! * Deleting a bundle in mode `DISSOCIATE` raises the revision number of the entries it unlinks and in mode `DELETE`
//!   removes all rows of the entries, and both leave event rows: agents and caches notice.
//! * Appending an authority that is there already, but tainted, does not add it a second time.
//! * Pruning a bundle keeps JWT keys that have no expiry.
//! * An index on `(spiffe_id, parent_id)` of our own serves the look for a similar entry.

mod agents;
mod backup;
mod bundles;
mod changes;
mod config;
mod conn;
mod entries;
mod error;
mod federation;
mod foreign;
mod journals;
mod migrations;
mod notify;
mod readers;
mod rows;
mod schema;
mod selectors;
mod store;
mod time;
mod tokens;
mod watermark;
mod writer;

pub use backup::{BackupError, Header as BackupHeader, Restored, Summary as BackupSummary, backup, restore};
pub use config::{DatabaseConfig, NetworkConfig, ServerKind, SqliteConfig};
pub use error::OpenError;
pub use store::SqlStore;
