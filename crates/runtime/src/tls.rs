//! Mutual TLS from a live SVID and live bundles: what guards the server's TCP API and the agent's way to it.
//!
//! TLS 1.2 at least, ALPN h2, no session tickets, X25519MLKEM768 preferred. Certificates are judged by
//! `steeple_spiffe::x509::verify_svid` against the bundles as they are at the time of the handshake.

mod client;
mod identity;
mod server;
mod verify;

pub use client::{ClientTls, ServerTrust};
pub use identity::{IdentityError, LiveBundles, LiveIdentity};
pub use server::{ServerTls, TlsIncoming, TlsPeer, TlsStream};

use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    version::{TLS12, TLS13},
};
use std::sync::Arc;

const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];
const ALPN_H2: &[u8] = b"h2";

/// aws-lc-rs with the hybrid key exchange first, whatever the process default is.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
