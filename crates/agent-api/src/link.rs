//! The way to the server: one channel that presents the agent's SVID of the moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use steeple_proto::spire::api::server::{
    agent::v1::agent_client::AgentClient, bundle::v1::bundle_client::BundleClient,
    entry::v1::entry_client::EntryClient, svid::v1::svid_client::SvidClient,
};
use steeple_proto::steeple::agent::v1::sync_client::SyncClient;
use steeple_proto::steeple::server::v1::explain_client::ExplainClient;
use steeple_runtime::clock::Clock;
use steeple_runtime::tls::{ClientTls, KeyExchange, LiveBundles, LiveIdentity, ServerTrust, Servers};
use steeple_spiffe::{SpiffeId, TrustDomain};
use tonic::transport::Channel;

use crate::failure::ServerError;

/// Each call's deadline (SPIRE).
pub(crate) const RPC_TIMEOUT: Duration = Duration::from_secs(30);
/// Entries and bundles have no limit that the agent could know.
const MAX_RESPONSE: usize = usize::MAX;

/// See the [module](self).
pub struct ServerLink {
    exchange: KeyExchange,
    servers: Arc<Servers>,
    server_id: SpiffeId,
    pub(crate) identity: LiveIdentity,
    pub(crate) bundles: LiveBundles,
    clock: Arc<dyn Clock>,
    channel: ArcSwap<Channel>,
    generation: AtomicU64,
}

impl ServerLink {
    /// `address` is `host:port` or `host,host,…:port`; each name may have several addresses. Connects at the first call.
    pub fn new(
        address: &str,
        trust_domain: &TrustDomain,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServerError> {
        Self::with_key_exchange(KeyExchange::Any, address, trust_domain, clock)
    }

    /// As [`ServerLink::new`], with servers that take part in such a key exchange only (`require_pq_kem`).
    pub fn with_key_exchange(
        exchange: KeyExchange,
        address: &str,
        trust_domain: &TrustDomain,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServerError> {
        let server_id = SpiffeId::from_parts(trust_domain, "/spire/server")
            .map_err(|error| ServerError::other(error.to_string()))?;
        let (identity, bundles) = (LiveIdentity::new(), LiveBundles::new());
        let servers = Arc::new(Servers::new(address));
        let channel = connect(exchange, &servers, &server_id, &identity, &bundles, false, &clock)?;
        Ok(Self {
            exchange,
            servers,
            server_id,
            identity,
            bundles,
            clock,
            channel: ArcSwap::from_pointee(channel),
            generation: AtomicU64::new(0),
        })
    }

    /// Later calls go over a new connection: the old one shows an SVID that the server no longer accepts.
    pub(crate) fn reconnect(&self) -> Result<(), ServerError> {
        let channel = self.connect(&self.identity, false)?;
        self.channel.store(Arc::new(channel));
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Later calls go to another server if there is one: this one does not serve, or serves an older view than another did.
    pub(crate) fn elsewhere(&self) -> Result<(), ServerError> {
        self.servers.avoid_last();
        self.reconnect()
    }

    /// Counts [`ServerLink::reconnect`]: a refusal of a call that began under an older number says nothing.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A connection without the agent's SVID, for attestation. `insecure` looks at the server's ID only.
    pub(crate) fn anonymous(&self, insecure: bool) -> Result<Channel, ServerError> {
        self.connect(&LiveIdentity::new(), insecure)
    }

    pub(crate) fn agent(&self) -> AgentClient<Channel> {
        AgentClient::new(self.channel())
    }

    pub(crate) fn bundle(&self) -> BundleClient<Channel> {
        BundleClient::new(self.channel()).max_decoding_message_size(MAX_RESPONSE)
    }

    pub(crate) fn entry(&self) -> EntryClient<Channel> {
        EntryClient::new(self.channel()).max_decoding_message_size(MAX_RESPONSE)
    }

    pub(crate) fn svid(&self) -> SvidClient<Channel> {
        SvidClient::new(self.channel()).max_decoding_message_size(MAX_RESPONSE)
    }

    pub(crate) fn explain(&self) -> ExplainClient<Channel> {
        ExplainClient::new(self.channel())
    }

    pub(crate) fn sync(&self) -> SyncClient<Channel> {
        SyncClient::new(self.channel()).max_decoding_message_size(MAX_RESPONSE)
    }

    fn connect(&self, identity: &LiveIdentity, insecure: bool) -> Result<Channel, ServerError> {
        let Self { exchange, servers, server_id, bundles, clock, .. } = self;
        connect(*exchange, servers, server_id, identity, bundles, insecure, clock)
    }

    fn channel(&self) -> Channel {
        Channel::clone(&self.channel.load())
    }
}

fn connect(
    exchange: KeyExchange,
    servers: &Arc<Servers>,
    server_id: &SpiffeId,
    identity: &LiveIdentity,
    bundles: &LiveBundles,
    insecure: bool,
    clock: &Arc<dyn Clock>,
) -> Result<Channel, ServerError> {
    let trust = if insecure { ServerTrust::InsecureBootstrap } else { ServerTrust::Bundles(bundles.clone()) };
    ClientTls::with_key_exchange(exchange, server_id.clone(), trust, identity.clone(), clock.clone())
        .map_err(|error| ServerError::other(format!("TLS could not be set up: {error}")))?
        .channel(servers)
        .map_err(|error| {
            ServerError::other(format!("server address {:?} is not valid: {error}", servers.first()))
        })
}
