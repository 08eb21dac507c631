//! Every RPC we serve: who may call it, which limit it draws from, and its name in logs.
//!
//! One row per RPC, as SPIRE's default policy has them. A method that is not here is refused.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Who may call a method. Several may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Callers without any identity too.
    pub anyone: bool,
    /// Callers on the Unix socket.
    pub local: bool,
    /// `admin_ids`, or an entry with `admin`.
    pub admin: bool,
    /// An attested, active agent. Never holds on the Unix socket.
    pub agent: bool,
    /// An entry with `downstream`.
    pub downstream: bool,
}

/// The buckets of spire.md §1.6. Methods that name the same bucket share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    Unlimited,
    Attest,
    Csr,
    Jsr,
    Wit,
    Push,
    Status,
    Explain,
}

/// One RPC.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// `/spire.api.server.entry.v1.Entry/GetEntry`
    pub path: &'static str,
    /// As SPIRE logs it: `entry.v1.Entry`.
    pub service: &'static str,
    /// `GetEntry`
    pub name: &'static str,
    pub access: Access,
    pub bucket: Bucket,
}

impl Method {
    /// Whether the endpoint has the method's service: the one for people is on the Unix socket only, that for
    /// agents of ours on TCP only.
    pub fn is_served(&self, local: bool) -> bool {
        if local { !self.path.starts_with("/steeple.agent.v1.") } else { self.access != LOCAL }
    }
}

/// The row of a full method path.
pub fn method(path: &str) -> Option<&'static Method> {
    static INDEX: LazyLock<HashMap<&'static str, &'static Method>> =
        LazyLock::new(|| METHODS.iter().map(|m| (m.path, m)).collect());
    INDEX.get(path).copied()
}

const NOBODY: Access = Access { anyone: false, local: false, admin: false, agent: false, downstream: false };
const LOCAL: Access = Access { local: true, ..NOBODY };
const LOCAL_ADMIN: Access = Access { admin: true, ..LOCAL };
const LOCAL_ADMIN_AGENT: Access = Access { agent: true, ..LOCAL_ADMIN };
const AGENT: Access = Access { agent: true, ..NOBODY };
const DOWNSTREAM: Access = Access { downstream: true, ..NOBODY };
const ANYONE: Access = Access { anyone: true, ..NOBODY };

macro_rules! rpc {
    ($package:literal, $service:literal, $name:literal, $access:expr, $bucket:ident) => {
        Method {
            path: concat!("/", $package, "/", $name),
            service: $service,
            name: $name,
            access: $access,
            bucket: Bucket::$bucket,
        }
    };
}
macro_rules! agent {
    ($($t:tt)*) => { rpc!("spire.api.server.agent.v1.Agent", "agent.v1.Agent", $($t)*) };
}
macro_rules! bundle {
    ($($t:tt)*) => { rpc!("spire.api.server.bundle.v1.Bundle", "bundle.v1.Bundle", $($t)*) };
}
macro_rules! entry {
    ($($t:tt)*) => { rpc!("spire.api.server.entry.v1.Entry", "entry.v1.Entry", $($t)*) };
}
macro_rules! svid {
    ($($t:tt)*) => { rpc!("spire.api.server.svid.v1.SVID", "svid.v1.SVID", $($t)*) };
}
macro_rules! logger {
    ($($t:tt)*) => { rpc!("spire.api.server.logger.v1.Logger", "Logger", $($t)*) };
}
macro_rules! health {
    ($($t:tt)*) => { rpc!("grpc.health.v1.Health", "Health", $($t)*) };
}

macro_rules! trust_domain {
    ($($t:tt)*) => { rpc!("spire.api.server.trustdomain.v1.TrustDomain", "trustdomain.v1.TrustDomain", $($t)*) };
}

macro_rules! local_authority {
    ($($t:tt)*) => {
        rpc!("spire.api.server.localauthority.v1.LocalAuthority", "localauthority.v1.LocalAuthority", $($t)*)
    };
}

/// All rows, in the order of spire.md §1.7.
pub const METHODS: &[Method] = &[
    agent!("CountAgents", LOCAL_ADMIN, Unlimited),
    agent!("ListAgents", LOCAL_ADMIN, Unlimited),
    agent!("GetAgent", LOCAL_ADMIN, Unlimited),
    agent!("DeleteAgent", LOCAL_ADMIN, Unlimited),
    agent!("BanAgent", LOCAL_ADMIN, Unlimited),
    agent!("CreateJoinToken", LOCAL_ADMIN, Unlimited),
    agent!("AttestAgent", ANYONE, Attest),
    agent!("RenewAgent", AGENT, Csr),
    agent!("PostStatus", AGENT, Status),
    bundle!("GetBundle", ANYONE, Unlimited),
    bundle!("AppendBundle", LOCAL_ADMIN, Unlimited),
    bundle!("CountBundles", LOCAL_ADMIN, Unlimited),
    bundle!("ListFederatedBundles", LOCAL_ADMIN, Unlimited),
    bundle!("GetFederatedBundle", LOCAL_ADMIN_AGENT, Unlimited),
    bundle!("BatchCreateFederatedBundle", LOCAL_ADMIN, Unlimited),
    bundle!("BatchUpdateFederatedBundle", LOCAL_ADMIN, Unlimited),
    bundle!("BatchSetFederatedBundle", LOCAL_ADMIN, Unlimited),
    bundle!("BatchDeleteFederatedBundle", LOCAL_ADMIN, Unlimited),
    bundle!("PublishJWTAuthority", DOWNSTREAM, Push),
    bundle!("PublishWITAuthority", DOWNSTREAM, Push),
    entry!("CountEntries", LOCAL_ADMIN, Unlimited),
    entry!("ListEntries", LOCAL_ADMIN, Unlimited),
    entry!("GetEntry", LOCAL_ADMIN, Unlimited),
    entry!("BatchCreateEntry", LOCAL_ADMIN, Unlimited),
    entry!("BatchUpdateEntry", LOCAL_ADMIN, Unlimited),
    entry!("BatchDeleteEntry", LOCAL_ADMIN, Unlimited),
    entry!("GetAuthorizedEntries", AGENT, Unlimited),
    entry!("SyncAuthorizedEntries", AGENT, Unlimited),
    svid!("MintX509SVID", LOCAL_ADMIN, Unlimited),
    svid!("MintJWTSVID", LOCAL_ADMIN, Unlimited),
    svid!("MintWITSVID", LOCAL_ADMIN, Unlimited),
    svid!("BatchNewX509SVID", AGENT, Csr),
    svid!("NewJWTSVID", AGENT, Jsr),
    svid!("BatchNewWITSVID", AGENT, Wit),
    svid!("NewDownstreamX509CA", DOWNSTREAM, Csr),
    trust_domain!("ListFederationRelationships", LOCAL_ADMIN, Unlimited),
    trust_domain!("GetFederationRelationship", LOCAL_ADMIN, Unlimited),
    trust_domain!("BatchCreateFederationRelationship", LOCAL_ADMIN, Unlimited),
    trust_domain!("BatchUpdateFederationRelationship", LOCAL_ADMIN, Unlimited),
    trust_domain!("BatchDeleteFederationRelationship", LOCAL_ADMIN, Unlimited),
    trust_domain!("RefreshBundle", LOCAL_ADMIN, Unlimited),
    local_authority!("GetJWTAuthorityState", LOCAL_ADMIN, Unlimited),
    local_authority!("PrepareJWTAuthority", LOCAL_ADMIN, Unlimited),
    local_authority!("ActivateJWTAuthority", LOCAL_ADMIN, Unlimited),
    local_authority!("TaintJWTAuthority", LOCAL_ADMIN, Unlimited),
    local_authority!("RevokeJWTAuthority", LOCAL_ADMIN, Unlimited),
    local_authority!("GetX509AuthorityState", LOCAL_ADMIN, Unlimited),
    local_authority!("PrepareX509Authority", LOCAL_ADMIN, Unlimited),
    local_authority!("ActivateX509Authority", LOCAL_ADMIN, Unlimited),
    local_authority!("TaintX509Authority", LOCAL_ADMIN, Unlimited),
    local_authority!("TaintX509UpstreamAuthority", LOCAL_ADMIN, Unlimited),
    local_authority!("RevokeX509Authority", LOCAL_ADMIN, Unlimited),
    local_authority!("RevokeX509UpstreamAuthority", LOCAL_ADMIN, Unlimited),
    local_authority!("GetWITAuthorityState", LOCAL_ADMIN, Unlimited),
    local_authority!("PrepareWITAuthority", LOCAL_ADMIN, Unlimited),
    local_authority!("ActivateWITAuthority", LOCAL_ADMIN, Unlimited),
    local_authority!("TaintWITAuthority", LOCAL_ADMIN, Unlimited),
    local_authority!("RevokeWITAuthority", LOCAL_ADMIN, Unlimited),
    logger!("GetLogger", LOCAL, Unlimited),
    logger!("SetLogLevel", LOCAL, Unlimited),
    logger!("ResetLogLevel", LOCAL, Unlimited),
    rpc!("spire.api.server.debug.v1.Debug", "debug.v1.Debug", "GetInfo", LOCAL, Unlimited),
    // Ours, for people with grpcurl.
    rpc!("grpc.reflection.v1.ServerReflection", "ServerReflection", "ServerReflectionInfo", LOCAL, Unlimited),
    rpc!(
        "grpc.reflection.v1alpha.ServerReflection",
        "ServerReflection",
        "ServerReflectionInfo",
        LOCAL,
        Unlimited
    ),
    health!("Check", LOCAL, Unlimited),
    health!("List", LOCAL, Unlimited),
    health!("Watch", LOCAL, Unlimited),
    rpc!("steeple.server.v1.Rotation", "steeple.server.v1.Rotation", "RotateEntries", LOCAL_ADMIN, Unlimited),
    rpc!("steeple.server.v1.Rotation", "steeple.server.v1.Rotation", "RotateAgents", LOCAL_ADMIN, Unlimited),
    rpc!(
        "steeple.server.v1.Federation",
        "steeple.server.v1.Federation",
        "ListStates",
        LOCAL_ADMIN,
        Unlimited
    ),
    rpc!("steeple.server.v1.Explain", "steeple.server.v1.Explain", "Registrations", LOCAL_ADMIN, Unlimited),
    rpc!("steeple.server.v1.Explain", "steeple.server.v1.Explain", "ForAgent", AGENT, Explain),
    // Ours: the same callers as SyncAuthorizedEntries.
    rpc!("steeple.agent.v1.Sync", "steeple.agent.v1.Sync", "Watch", AGENT, Unlimited),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_one_row() {
        for row in METHODS {
            assert_eq!(method(row.path), Some(row));
        }
        assert_eq!(method("/spire.api.server.trustdomain.v1.TrustDomain/Nothing"), None);
        assert_eq!(method(""), None);
    }

    #[test]
    fn counts_of_spires_policy() {
        let count = |access: Access| {
            METHODS.iter().filter(|m| m.path.starts_with("/spire.") && m.access == access).count()
        };
        assert_eq!(count(LOCAL_ADMIN), 45);
        assert_eq!(count(LOCAL_ADMIN_AGENT), 1);
        assert_eq!(count(AGENT), 7);
        assert_eq!(count(LOCAL), 4);
        assert_eq!(count(DOWNSTREAM), 3);
        assert_eq!(count(ANYONE), 2);
    }
}
