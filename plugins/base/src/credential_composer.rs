//! What may change credentials before they are signed.

mod unique_id;

pub use unique_id::UniqueId;
