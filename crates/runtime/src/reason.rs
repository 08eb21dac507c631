//! Why something was refused or goes wrong, as a code that never changes: it stands in the log line, in a metric's
//! label, in the details of the gRPC status, and in what `explain` and `mtls-check` answer (DESIGN §3.10).
//! docs/operations/explain.md lists them; a test keeps it true.

use std::fmt;

macro_rules! reasons {
    ($($(#[$attr:meta])* $name:ident = $code:literal, $meaning:literal, $advice:literal;)+) => {
        /// See the [module](self).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$attr])* #[doc = $meaning] $name,)+
        }

        impl Reason {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// `UPPER_SNAKE`, stable.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// One sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),+ }
            }

            /// What an operator does about it; empty if there is nothing to do.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice),+ }
            }
        }
    };
}

reasons! {
    // What the workload has.
    Issued = "ISSUED",
        "The workload has an identity.", "";
    SigningPending = "SIGNING_PENDING",
        "An entry matches; its SVID is being signed, or will be at the first request.",
        "Ask again in a moment; if it stays so, look at the server's load and log.";
    SigningFailed = "SIGNING_FAILED",
        "An entry matches and the server does not sign its SVID.",
        "The server's error says why; the agent tries again by itself.";
    TtlClamped = "TTL_CLAMPED",
        "The SVID ends before the entry's TTL is over, because the authority that signed it ends then.",
        "Raise the server's ca_ttl well above the entry's TTL, or lower the TTL.";
    EntryExpired = "ENTRY_EXPIRED",
        "The entry's expiry is over: the server prunes it.",
        "Set a later -entryExpiry with `spire-server entry update`, or create the entry anew.";
    HintTaken = "HINT_TAKEN",
        "An older entry with the same hint is served in place of this one.",
        "Give the entries different hints.";
    DelegateWithheld = "DELEGATE_WITHHELD",
        "The entry has `admin` or `downstream`: it is never handed out through the Delegated Identity API.",
        "Have the workload fetch it itself from the Workload API, or clear the flag on the entry.";
    FederatedBundleMissing = "FEDERATED_BUNDLE_MISSING",
        "The entry federates with a trust domain whose bundle is not there.",
        "Look at `spire-server federation list` and `bundle list` on the server.";

    // Why it has none: selectors.
    SelectorMissing = "SELECTOR_MISSING",
        "An entry would match if the workload had the selectors that are named.",
        "Correct the entry's selectors, or run the workload as the entry describes it.";
    SelectorTypo = "SELECTOR_TYPO",
        "An entry asks for a selector that is almost the one that was found.",
        "Correct the entry's selector with `spire-server entry update`.";
    AttestorDisabled = "ATTESTOR_DISABLED",
        "An entry asks for selectors of a workload attestor that this agent does not run.",
        "Configure the WorkloadAttestor plugin in the agent's configuration and restart it.";
    AttestorFailed = "ATTESTOR_FAILED",
        "A workload attestor whose selectors an entry asks for could not look at the process.",
        "The attestor's error says why.";
    AttestationFailed = "ATTESTATION_FAILED",
        "No workload attestor could look at the process.",
        "The attestors' errors say why.";
    CallerGone = "CALLER_GONE",
        "The process has ended or was replaced while it was looked at.",
        "Ask again while the process runs.";
    EntryForStore = "ENTRY_FOR_STORE",
        "The entry that matches is for an SVID store, not for the Workload API.",
        "Clear storeSVID on the entry if the workload is to fetch the identity itself.";
    NoEntry = "NO_ENTRY",
        "No entry that this agent may serve matches or nearly matches the workload.",
        "Create one: `spire-server entry create` with this agent's ID or alias as -parentID.";

    // Why it has none: parents and trust domains.
    ParentNotReached = "PARENT_NOT_REACHED",
        "An entry matches, but its parent does not lead to this agent.",
        "Set -parentID to the agent's ID, to an alias (-node entry) that the agent matches, or to an identity below them.";
    ForeignTrustDomain = "FOREIGN_TRUST_DOMAIN",
        "The identity belongs to another trust domain.",
        "Identities come from their own trust domain's servers; to be understood by its workloads, federate with it.";
    NotADelegate = "NOT_A_DELEGATE",
        "The caller's identities are not listed in authorized_delegates.",
        "List one of them in the agent's authorized_delegates.";

    // The agent and its server.
    AgentBanned = "AGENT_BANNED",
        "The server has banned this agent.",
        "If that was a mistake: `spire-server agent evict`, then let the agent attest again.";
    AgentNotAttested = "AGENT_NOT_ATTESTED",
        "The server does not know this agent.",
        "Let the agent attest again: a new join token, or a node attestor that can do so by itself.";
    AgentExpired = "AGENT_EXPIRED",
        "The agent's own SVID is over.",
        "Look at the agent's log for why it was not renewed, and at the clocks of both machines.";
    ServerUntrusted = "SERVER_UNTRUSTED",
        "The server's certificate is not under the agent's trust bundle.",
        "Check server_address and the trust bundle; rebootstrap_mode lets the agent take a new one by itself.";
    ServerUnreachable = "SERVER_UNREACHABLE",
        "The agent does not reach its server, so what it knows may be old.",
        "Check that the server runs, and server_address, server_port and the network.";
    ViewStale = "VIEW_STALE",
        "The server has entries for this agent that it has not received yet.",
        "It should within seconds; if not, look for \"Synchronize failed\" in the agent's log.";
    ServerStale = "SERVER_STALE",
        "The server's view is older than the one the agent has already seen: the agent keeps its own.",
        "The server reads from a restored or lagging database: point it to the primary one.";
    ServerCannotExplain = "SERVER_CANNOT_EXPLAIN",
        "The server does not answer questions about entries elsewhere (it is not Steeple's, or explain_to_agents is off).",
        "Ask on the server: `spire-server entry show`, or `spire-server explain` where it is Steeple's.";
    Stopping = "AGENT_STOPPING",
        "The agent is stopping.", "";

    // Two peers.
    ConnectFailed = "CONNECT_FAILED",
        "The peer's address does not answer.",
        "Check the address, the port and the network.";
    NotTls = "NOT_TLS",
        "The peer does not speak TLS on this port.",
        "Check the port; a proxy may take the TLS off before it.";
    PeerRejectedUs = "PEER_REJECTED_US",
        "The peer refused our certificate or our TLS parameters.",
        "Look at the peer's log; its bundle may lack our authorities, or our SPIFFE ID may not be allowed.";
    HandshakeFailed = "HANDSHAKE_FAILED",
        "The TLS handshake failed before the peer showed a certificate.",
        "The error says what the two have not in common.";
    NoSpiffeId = "NO_SPIFFE_ID",
        "The peer's certificate is not an X.509-SVID.",
        "The peer shows another certificate than its SVID: look at its TLS configuration.";
    UnknownAuthority = "UNKNOWN_AUTHORITY",
        "The peer's certificate was signed by an authority that is not in our bundle.",
        "One side has an old bundle, or the peer's trust domain was set up anew: compare the authority key ids.";
    CertificateExpired = "CERTIFICATE_EXPIRED",
        "The peer's certificate is over.",
        "The peer does not take up its new SVIDs, or a clock is wrong.";
    CertificateNotYetValid = "CERTIFICATE_NOT_YET_VALID",
        "The peer's certificate is not valid yet.",
        "A clock is wrong: compare this machine's with the peer's and the server's.";
    WrongSpiffeId = "WRONG_SPIFFE_ID",
        "The peer is another one than was expected.",
        "Check the address, and the peer's entry.";
    OwnSvidExpired = "OWN_SVID_EXPIRED",
        "Our own X.509-SVID is over.",
        "Look at the agent: `spire-agent api explain`.";
    BadChain = "BAD_CHAIN",
        "The peer's certificate chain does not hold together.",
        "The peer must send its SVID and the intermediates, leaf first.";
    MtlsOk = "MTLS_OK",
        "Both sides authenticated each other.", "";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_in_the_book() {
        let mut seen = HashSet::new();
        let book = include_str!("../../../docs/operations/explain.md");
        for reason in Reason::ALL {
            let code = reason.code();
            assert!(seen.insert(code), "{code} twice");
            assert!(code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{code}");
            let row = format!("| `{code}` | {} | {} |", reason.meaning(), reason.advice());
            assert!(book.contains(&row), "docs/operations/explain.md lacks the row:\n{row}");
        }
        let rows = book.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, Reason::ALL.len(), "docs/operations/explain.md has rows of other codes");
    }
}
