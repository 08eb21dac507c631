//! Bundle endpoints over HTTPS (SPIFFE Federation §5): asking one, and being one.

mod client;
mod files;
mod server;

pub use client::{FetchError, fetch};
pub use files::{CertificateFiles, FilesError, Reload};
pub use server::{Answer, BundleEndpoint};

#[cfg(test)]
mod tests;
