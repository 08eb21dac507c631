//! What clients read: every variant of every service's error, its code and its words. The words are SPIRE's.

use steeple_datastore::Error as StoreError;
use steeple_plugin::AttestError;
use steeple_server_core::ca::CaError;
use steeple_spiffe::IdError;
use steeple_spiffe::x509::{DnsNameError, X509Error};
use tonic::Code::{self, *};

use super::*;
use crate::agent::AgentError;
use crate::bundle::BundleError;
use crate::convert::ConvertError;
use crate::debug::DebugError;
use crate::entry::EntryError;
use crate::health::HealthError;
use crate::logger::LoggerError;
use crate::push::PushError;
use crate::svid::SvidError;
use crate::trust_domain::{RelationshipError, TrustDomainError};

fn store() -> StoreError {
    StoreError::Internal("disk on fire".to_owned())
}

const STORE: &str = "datastore-sql: disk on fire";

fn convert() -> ConvertError {
    ConvertError::MissingId
}

const CONVERT: &str = "request must specify SPIFFE ID";

fn x509() -> X509Error {
    X509Error::MalformedRequest("x".to_owned())
}

const X509: &str = "malformed certificate request: x";

fn check<E: ApiError>(rows: impl IntoIterator<Item = (E, Code, String)>)
where
    Status: From<E>,
{
    for (error, code, message) in rows {
        let item = to_item_status(&error);
        assert_eq!((item.code, item.message.as_str()), (code as i32, message.as_str()));
        let reason = error.reason();
        let status = Status::from(error);
        assert_eq!((status.code(), status.message()), (code, message.as_str()));
        assert_eq!(denied_reason(&status), reason);
    }
}

fn row<E>(error: E, code: Code, message: &str) -> (E, Code, String) {
    (error, code, message.to_owned())
}

fn caused<E>(error: E, code: Code, message: &str, cause: &str) -> (E, Code, String) {
    (error, code, format!("{message}: {cause}"))
}

fn attestor(error: AttestError) -> crate::agent::AgentError {
    crate::agent::AgentError::Attestor { name: "x".to_owned(), error }
}

#[test]
fn agent_service() {
    use AgentError as E;
    check([
        caused(E::Id(convert()), InvalidArgument, "invalid agent ID", CONVERT),
        row(E::NotFound, NotFound, "agent not found"),
        caused(E::Selectors(convert()), InvalidArgument, "failed to parse selectors", CONVERT),
        row(
            E::ExpiresBefore("x".to_owned()),
            InvalidArgument,
            "failed to parse expires-before filter \"x\": expected the form \"2006-01-02 15:04:05 -0700 -07\"",
        ),
        caused(E::Count(store()), Internal, "failed to count agents", STORE),
        caused(E::List(store()), Internal, "failed to list agents", STORE),
        caused(E::Fetch(store()), Internal, "failed to fetch agent", STORE),
        caused(E::Remove(store()), Internal, "failed to remove agent", STORE),
        caused(E::Ban(store()), Internal, "failed to ban agent", STORE),
        caused(E::Update(store()), Internal, "failed to update agent", STORE),
        row(E::NoCaller, Internal, "caller ID missing from request context"),
        caused(E::Receive("EOF".to_owned()), InvalidArgument, "failed to receive request from stream", "EOF"),
        row(
            E::Slow { what: "its first message", seconds: 30 },
            DeadlineExceeded,
            "gave up on the agent: its first message took longer than 30 seconds",
        ),
        row(
            E::TooManyOpen(9),
            ResourceExhausted,
            "rejecting request: 9 attestations from this address are under way already; try again when some have \
             ended",
        ),
        row(E::Params("missing CSR"), InvalidArgument, "malformed param: missing CSR"),
        row(
            E::UnknownAttestor("x".to_owned()),
            FailedPrecondition,
            "error getting node attestor: could not find node attestor type \"x\"",
        ),
        row(
            E::TokenGone,
            InvalidArgument,
            "failed to attest: join token does not exist or has already been used",
        ),
        row(E::TokenExpired, InvalidArgument, "join token expired"),
        caused(E::FetchToken(store()), Internal, "failed to fetch join token", STORE),
        caused(E::TakeToken(store()), Internal, "failed to delete join token", STORE),
        caused(
            E::TokenId(IdError::EmptySegment),
            Internal,
            "failed to create join token ID",
            "path cannot contain empty segments",
        ),
        row(attestor(AttestError::InvalidArgument("a".to_owned())), InvalidArgument, "nodeattestor(x): a"),
        row(attestor(AttestError::PermissionDenied("b".to_owned())), PermissionDenied, "nodeattestor(x): b"),
        row(attestor(AttestError::Unavailable("c".to_owned())), Unavailable, "nodeattestor(x): c"),
        row(attestor(AttestError::Internal("d".to_owned())), Internal, "nodeattestor(x): d"),
        caused(
            E::ReceiveChallenge("EOF".to_owned()),
            Internal,
            "failed to receive challenge from agent",
            "EOF",
        ),
        row(E::ServerId, Internal, "agent ID cannot collide with the server ID"),
        row(E::Banned, PermissionDenied, "failed to attest: agent is banned"),
        caused(E::Put(store()), Internal, "failed to create attested agent", STORE),
        row(E::MustReattest, PermissionDenied, "agent must reattest instead of renew"),
        row(E::NilParams, InvalidArgument, "params cannot be nil"),
        row(E::MissingCsr, InvalidArgument, "missing CSR"),
        caused(E::ParseCsr(x509()), InvalidArgument, "failed to parse CSR", X509),
        caused(
            E::Sign(CaError::X509NotReady),
            Internal,
            "failed to sign X509 SVID",
            "X509 CA is not available for signing",
        ),
        row(E::VersionTooLong, InvalidArgument, "agent version is too long (max 255 characters)"),
        row(E::MissingTtl, InvalidArgument, "ttl is required, you must provide one"),
        caused(E::CreateToken(store()), Internal, "failed to create token", STORE),
        caused(
            E::TokenEntryId(IdError::DotSegment),
            Internal,
            "failed to create join token registration entry: failed to create join token ID",
            "path cannot contain dot segments",
        ),
        caused(E::TokenEntry(store()), Internal, "failed to create join token registration entry", STORE),
    ]);
}

#[test]
fn entry_service() {
    use EntryError as E;
    check([
        caused(E::ParentFilter(convert()), InvalidArgument, "malformed parent ID filter", CONVERT),
        caused(E::SpiffeIdFilter(convert()), InvalidArgument, "malformed SPIFFE ID filter", CONVERT),
        caused(E::SelectorsFilter(convert()), InvalidArgument, "malformed selectors filter", CONVERT),
        caused(
            E::FederatesWithFilter(convert()),
            InvalidArgument,
            "malformed federates with filter",
            CONVERT,
        ),
        caused(E::Count(store()), Internal, "failed to count entries", STORE),
        caused(E::List(store()), Internal, "failed to list entries", STORE),
        caused(E::Fetch(store()), Internal, "failed to fetch entry", STORE),
        row(E::MissingId, InvalidArgument, "missing ID"),
        row(E::MissingEntryId, InvalidArgument, "missing entry ID"),
        row(E::NotFound, NotFound, "entry not found"),
        caused(E::Convert(convert()), InvalidArgument, "failed to convert entry", CONVERT),
        row(E::Similar, AlreadyExists, "similar entry already exists"),
        caused(E::Create(store()), Internal, "failed to create entry", STORE),
        caused(
            E::Create(StoreError::Invalid("bad".to_owned())),
            InvalidArgument,
            "failed to create entry",
            "datastore-validation: bad",
        ),
        caused(E::Update(store()), Internal, "failed to update entry", STORE),
        row(E::UpdateMissing, NotFound, "failed to update entry"),
        row(E::CreateMissing, NotFound, "failed to create entry"),
        caused(E::Delete(store()), Internal, "failed to delete entry", STORE),
        row(E::InitialIds, InvalidArgument, "specifying IDs on initial request is not supported"),
        row(E::RevisionMasked, InvalidArgument, "revision number cannot be masked"),
    ]);
}

#[test]
fn svid_service() {
    use SvidError as E;
    let ca = || CaError::X509NotReady;
    const CA: &str = "X509 CA is not available for signing";
    check([
        row(E::MissingParams, InvalidArgument, "missing parameters"),
        row(E::MissingCsr, InvalidArgument, "missing CSR"),
        row(E::MissingEntryId, InvalidArgument, "missing entry ID"),
        caused(E::MalformedCsr(x509()), InvalidArgument, "malformed CSR", X509),
        caused(E::MintSignature(x509()), InvalidArgument, "failed to verify CSR signature", X509),
        caused(E::CsrSignature(x509()), InvalidArgument, "invalid CSR signature", X509),
        row(E::NoUri, InvalidArgument, "CSR URI SAN is required"),
        row(E::ManyUris, InvalidArgument, "only one URI SAN is expected"),
        caused(E::Uri(convert()), InvalidArgument, "CSR URI SAN is invalid", CONVERT),
        caused(
            E::DnsName(DnsNameError::TooManyWildcards),
            InvalidArgument,
            "CSR DNS name is invalid",
            "too many wildcards",
        ),
        caused(
            E::DnsOverlap(DnsNameError::Empty),
            InvalidArgument,
            "CSR DNS name contains a wildcard that covers another non-wildcard name",
            "empty or only whitespace",
        ),
        caused(E::Sign(ca()), Internal, "failed to sign X509-SVID", CA),
        row(E::NotAuthorized, NotFound, "entry not found or not authorized"),
        row(E::NoCaller, Internal, "caller ID missing from request context"),
        row(E::JwtDisabled, Unimplemented, "JWT functionality is disabled"),
        row(E::WitDisabled, Unimplemented, "WIT functionality is disabled"),
        caused(E::SpiffeId(convert()), InvalidArgument, "invalid SPIFFE ID", CONVERT),
        row(E::NoAudience, InvalidArgument, "at least one audience is required"),
        caused(E::SignJwt(ca()), Internal, "failed to sign JWT-SVID", CA),
        row(E::NotDownstream, Internal, "caller is not a downstream workload"),
        caused(E::SignDownstream(ca()), Internal, "failed to sign downstream X.509 CA", CA),
        caused(E::Bundle(store()), Internal, "failed to fetch bundle", STORE),
        row(E::NoBundle, NotFound, "bundle not found"),
    ]);
}

#[test]
fn bundle_service() {
    use BundleError as E;
    check([
        caused(E::Count(store()), Internal, "failed to count bundles", STORE),
        caused(E::List(store()), Internal, "failed to list bundles", STORE),
        caused(E::Fetch(store()), Internal, "failed to fetch bundle", STORE),
        row(E::NotFound, NotFound, "bundle not found"),
        row(E::NothingToAppend, InvalidArgument, "no authorities to append"),
        caused(E::AppendJwt(convert()), InvalidArgument, "failed to convert JWT authority", CONVERT),
        caused(E::AppendX509(convert()), InvalidArgument, "failed to convert X.509 authority", CONVERT),
        caused(E::Append(store()), Internal, "failed to append bundle", STORE),
        row(E::MissingJwtAuthority, InvalidArgument, "missing JWT authority"),
        caused(E::JwtAuthority(convert()), InvalidArgument, "invalid JWT authority", CONVERT),
        caused(E::Publish(store()), Internal, "failed to publish JWT key", STORE),
        row(E::Wit, Unimplemented, "WIT-SVID functionality is not yet implemented"),
        caused(
            E::TrustDomain(IdError::MissingTrustDomain),
            InvalidArgument,
            "trust domain argument is not valid",
            "trust domain is missing",
        ),
        row(
            E::OwnTrustDomain("setting"),
            InvalidArgument,
            "setting a federated bundle for the server's own trust domain is not allowed",
        ),
        row(E::DeleteOwn, InvalidArgument, "removing the bundle for the server trust domain is not allowed"),
        caused(E::Convert(convert()), InvalidArgument, "failed to convert bundle", CONVERT),
        row(E::Exists, AlreadyExists, "bundle already exists"),
        caused(E::Create(store()), Internal, "unable to create bundle", STORE),
        caused(E::Set(store()), Internal, "failed to set bundle", STORE),
        caused(E::Update(store()), Internal, "failed to update bundle", STORE),
        caused(
            E::Delete(StoreError::FailedPrecondition("in use".to_owned())),
            FailedPrecondition,
            "failed to delete federated bundle",
            "datastore-sql: in use",
        ),
        row(E::DeleteMode(9), InvalidArgument, "failed to parse deletion mode: unhandled delete mode \"9\""),
    ]);
}

#[test]
fn the_other_services() {
    check([
        caused(DebugError::Agents(store()), Internal, "failed to count agents", STORE),
        caused(DebugError::Entries(store()), Internal, "failed to count entries", STORE),
        caused(DebugError::Bundles(store()), Internal, "failed to count bundles", STORE),
        caused(DebugError::Bundle(store()), Internal, "failed to fetch trust domain bundle", STORE),
        row(DebugError::NoBundle, NotFound, "trust domain bundle not found"),
        caused(DebugError::Verify(Cause::of("why")), Internal, "failed verification against bundle", "why"),
    ]);
    check([
        row(LoggerError::Unspecified, InvalidArgument, "newLevel value cannot be LogLevel_UNSPECIFIED"),
        row(LoggerError::Unsupported, InvalidArgument, "unsupported log level"),
    ]);
    check([
        row(HealthError::PerService, InvalidArgument, "per-service health is not supported"),
        row(HealthError::Watch, Unimplemented, "method Watch not implemented"),
    ]);
    let id = || "spiffe://td/a".parse().unwrap();
    check([
        row(PushError::NoCaller, Internal, "caller ID missing from request context"),
        row(
            PushError::Behind { ours: 1, theirs: 2 },
            FailedPrecondition,
            "this server is at revision 1 and the agent at 2; ask another server or try again",
        ),
        row(PushError::Banned(id()), PermissionDenied, "agent \"spiffe://td/a\" is banned"),
        row(PushError::Evicted(id()), PermissionDenied, "agent \"spiffe://td/a\" is not attested"),
        row(
            PushError::Rebalance,
            Unavailable,
            "the server closes long-lived streams so that agents spread over servers; open a new one",
        ),
        row(
            PushError::Expired,
            Unavailable,
            "the agent's X509-SVID has expired; open a new stream with a new one",
        ),
        row(PushError::Stopping, Unavailable, "the server is stopping"),
    ]);
}

#[test]
fn the_log_keeps_cause_and_situation_apart() {
    let text = log_text(&EntryError::Create(store()));
    assert_eq!(text, ("Failed to create entry".to_owned(), Some(STORE.to_owned())));
    let text = log_text(&EntryError::Convert(convert()));
    assert_eq!(text, ("Invalid argument: failed to convert entry".to_owned(), Some(CONVERT.to_owned())));
    assert_eq!(log_text(&EntryError::NotFound), ("Entry not found".to_owned(), None));
}

#[test]
fn trust_domain_service() {
    use TrustDomainError as E;
    let td = || steeple_spiffe::TrustDomain::new("x.org").unwrap();
    let missing = "trust domain is missing";
    check([
        caused(E::List(store()), Internal, "failed to list federation relationships", STORE),
        caused(
            E::Parse(IdError::MissingTrustDomain),
            InvalidArgument,
            "failed to parse trust domain",
            missing,
        ),
        caused(E::Fetch(store()), Internal, "failed to fetch federation relationship", STORE),
        row(E::NotFound, NotFound, "federation relationship does not exist"),
        caused(
            E::Convert(RelationshipError::NoProfile),
            InvalidArgument,
            "failed to convert federation relationship",
            "unsupported bundle endpoint profile type: <nil>",
        ),
        row(
            E::OwnTrustDomain,
            InvalidArgument,
            "unable to create federation relationship for server trust domain",
        ),
        caused(E::Create(store()), Internal, "failed to create federation relationship", STORE),
        caused(E::Update(store()), Internal, "failed to update federation relationship", STORE),
        caused(
            E::UpdateMissing,
            Internal,
            "failed to update federation relationship",
            "unable to fetch federation relationship: record not found",
        ),
        row(E::Missing, InvalidArgument, "missing trust domain"),
        row(E::DeleteMissing, NotFound, "federation relationship not found"),
        caused(E::Delete(store()), Internal, "failed to delete federation relationship", STORE),
        row(E::Unmanaged(td()), NotFound, "no relationship with trust domain \"x.org\""),
        caused(E::Refresh(Cause("down".to_owned())), Internal, "failed to refresh bundle", "down"),
    ]);
    let text = |error: RelationshipError| error.to_string();
    assert_eq!(
        text(RelationshipError::TrustDomain(IdError::MissingTrustDomain)),
        format!("failed to parse trust domain: {missing}")
    );
    assert_eq!(
        text(RelationshipError::OtherBundle { found: "a".to_owned(), expected: "b".to_owned() }),
        "trust domain bundle (\"a\") must match the trust domain of the federation relationship (\"b\")"
    );
}
