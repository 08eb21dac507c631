//! `x509pop`: an agent proves that it has the key of a certificate which a trusted CA, or SPIRE itself, issued.

mod agent;
mod fields;
mod server;
mod wire;

pub use agent::{X509PopAgent, X509PopAgentConfig};
pub use server::{X509Pop, X509PopConfig, X509PopOptions};

const NAME: &str = "x509pop";

#[cfg(test)]
mod tests;
