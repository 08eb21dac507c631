//! Federation: when the bundle of each other trust domain is fetched, what is accepted, and how it is going.
//!
//! [`Schedule`] is a plain state machine: relationships and times go in, trust domains to ask come out. Who runs it does
//! the asking and tells how it went. [`read_bundle`] judges what an endpoint served. [`Federation`] is what the API
//! holds: it orders a refresh and shows the state of every relationship.

mod handle;
mod read;
mod schedule;
mod url;

pub use handle::{Federation, Order, Orders, Refreshed};
pub use read::{ReadBundle, ReadError, read_bundle};
pub use schedule::{Attempt, Facts, Moved, RelationshipState, Schedule, Target};
pub use url::{UrlError, check_url};
