//! `sshpop`: an agent proves that it has the key of an OpenSSH host certificate.

mod agent;
mod certificate;
mod key;
mod messages;
mod private_key;
mod server;
mod wire;

pub use agent::{SshPopAgent, SshPopAgentConfig};
pub use server::{SshPop, SshPopConfig, SshPopOptions};

const NAME: &str = "sshpop";

#[cfg(test)]
mod tests;
