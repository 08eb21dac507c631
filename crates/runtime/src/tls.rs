//! Mutual TLS from a live SVID and live bundles: what guards the server's TCP API and the agent's way to it.
//!
//! TLS 1.2 at least, ALPN h2, no session tickets, X25519MLKEM768 preferred. Certificates are judged by
//! `steeple_spiffe::x509::verify_svid` against the bundles as they are at the time of the handshake.

mod client;
mod identity;
mod probe;
mod server;
mod servers;
mod verify;
mod web;

pub use client::{ClientTls, ServerTrust};
pub use identity::{IdentityError, LiveBundles, LiveIdentity};
pub use probe::{Failure as ProbeFailure, Probe, probe};
pub use server::{ServerTls, TlsIncoming, TlsPeer, TlsStream};
pub use servers::Servers;
pub(crate) use verify::refusal_in;
pub use web::{EndpointTrust, NoRoots, system_roots};
pub(crate) use web::{client_config, server_config};

use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    version::{TLS12, TLS13},
};
use std::sync::Arc;

const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];
const ALPN_H2: &[u8] = b"h2";

/// Which key exchanges a side takes part in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyExchange {
    /// Hybrid post-quantum ones first, then the classical ones.
    #[default]
    Any,
    /// Hybrid post-quantum ones only (SPIRE's `require_pq_kem`), which takes TLS 1.3.
    PostQuantum,
}

impl KeyExchange {
    fn provider(self) -> Arc<CryptoProvider> {
        let mut provider = aws_lc_rs::default_provider();
        if self == Self::PostQuantum {
            // SPIRE also has SecP384r1MLKEM1024, which this library has not.
            provider.kx_groups =
                vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::SECP256R1MLKEM768];
        }
        Arc::new(provider)
    }

    fn versions(self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        // Newest first.
        if self == Self::PostQuantum { &VERSIONS[..1] } else { VERSIONS }
    }
}

/// aws-lc-rs with the hybrid key exchange first, whatever the process default is.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
