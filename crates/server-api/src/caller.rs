//! Who calls: a process on the Unix socket, or a peer over TCP with or without an X.509-SVID.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Extensions;
use steeple_runtime::peer::{Peer, PeerInfo};
use steeple_runtime::tls::TlsPeer;
use steeple_spiffe::{Certificate, SpiffeId};
use tonic::Status;

/// Taken from what the listener knows about the connection.
#[derive(Clone, Debug)]
pub enum Caller {
    Local(Arc<Peer>),
    Remote { addr: SocketAddr, svid: Option<CallerSvid> },
}

/// A certificate chain that the listener has verified, with the one SPIFFE ID of its leaf.
#[derive(Clone, Debug)]
pub struct CallerSvid {
    pub id: SpiffeId,
    pub chain: Arc<Vec<Certificate>>,
}

impl CallerSvid {
    pub fn leaf(&self) -> Option<&Certificate> {
        self.chain.first()
    }
}

impl Caller {
    /// SPIRE answers Unauthenticated when the leaf has no or several URI SANs.
    pub fn from_extensions(extensions: &Extensions) -> Result<Self, Status> {
        if let Some(info) = extensions.get::<PeerInfo>() {
            return Ok(Self::Local(info.peer.clone()));
        }
        let Some(peer) = extensions.get::<TlsPeer>() else {
            return Err(Status::internal("no peer information available"));
        };
        let Some(chain) = &peer.chain else {
            return Ok(Self::Remote { addr: peer.addr, svid: None });
        };
        if let Some(id) = &peer.spiffe_id {
            // Read once for all calls of the connection.
            let svid = CallerSvid { id: id.clone(), chain: chain.clone() };
            return Ok(Self::Remote { addr: peer.addr, svid: Some(svid) });
        }
        let uris = chain.first().map(Certificate::uri_sans).unwrap_or_default();
        let uri = match uris.as_slice() {
            [uri] => uri,
            [] => return Err(Status::unauthenticated("client certificate has no URI SAN")),
            _ => return Err(Status::unauthenticated("client certificate has more than one URI SAN")),
        };
        let id = SpiffeId::from_uri(uri).map_err(|e| {
            Status::unauthenticated(format!("client certificate has a malformed URI SAN: {e}"))
        })?;
        Ok(Self::Remote { addr: peer.addr, svid: Some(CallerSvid { id, chain: chain.clone() }) })
    }

    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    pub fn svid(&self) -> Option<&CallerSvid> {
        match self {
            Self::Local(_) => None,
            Self::Remote { svid, .. } => svid.as_ref(),
        }
    }

    pub fn id(&self) -> Option<&SpiffeId> {
        self.svid().map(|svid| &svid.id)
    }
}
