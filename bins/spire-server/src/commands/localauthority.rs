//! `localauthority x509|jwt …`: the server's own authorities, rotated by hand.

use std::fmt::Write as _;
use std::marker::PhantomData;

use steeple_cli::{Api, ClientCommand, Context as _, Failure, Session, go};
use steeple_config::{Flag, FlagSet};
// The messages of X.509 and JWT differ in their names only; those of X.509 stand for both, and those of the four
// changes are alike, too.
use steeple_proto::spire::api::server::localauthority::v1::{
    ActivateX509AuthorityRequest, ActivateX509AuthorityResponse, AuthorityState,
    GetX509AuthorityStateRequest, GetX509AuthorityStateResponse,
};

const PACKAGE: &str = "spire.api.server.localauthority.v1";

/// X.509 or JWT.
pub trait Kind {
    /// As in the names of RPCs.
    const RPC: &'static str;
    /// As people write it.
    const TITLE: &'static str;
    const SHOW: &'static str;
    const CHANGES: [&'static str; 4];
    /// What SPIRE puts before an error of `show`.
    const SHOW_FAILED: Option<&'static str>;
    /// Whether the authority above is told.
    const UPSTREAM: bool;
}

pub struct X509;

impl Kind for X509 {
    const RPC: &'static str = "X509";
    const TITLE: &'static str = "X.509";
    const SHOW: &'static str = "localauthority x509 show";
    const CHANGES: [&'static str; 4] = [
        "localauthority x509 prepare",
        "localauthority x509 activate",
        "localauthority x509 taint",
        "localauthority x509 revoke",
    ];
    const SHOW_FAILED: Option<&'static str> = Some("could not get X.509 authorities");
    const UPSTREAM: bool = true;
}

pub struct Jwt;

impl Kind for Jwt {
    const RPC: &'static str = "JWT";
    const TITLE: &'static str = "JWT";
    const SHOW: &'static str = "localauthority jwt show";
    const CHANGES: [&'static str; 4] = [
        "localauthority jwt prepare",
        "localauthority jwt activate",
        "localauthority jwt taint",
        "localauthority jwt revoke",
    ];
    const SHOW_FAILED: Option<&'static str> = None;
    const UPSTREAM: bool = false;
}

/// What is done to an authority.
pub trait Verb {
    /// Which of [`Kind::CHANGES`].
    const INDEX: usize;
    const RPC: &'static str;
    const VERB: &'static str;
    const DONE: &'static str;
    /// Preparing makes a new authority: it needs no ID.
    const NEEDS_ID: bool;
}

macro_rules! verbs {
    ($($name:ident, $index:literal, $verb:literal, $done:literal, $needs_id:literal;)*) => {$(
        pub struct $name;

        impl Verb for $name {
            const INDEX: usize = $index;
            const RPC: &'static str = stringify!($name);
            const VERB: &'static str = $verb;
            const DONE: &'static str = $done;
            const NEEDS_ID: bool = $needs_id;
        }
    )*};
}

verbs! {
    Prepare, 0, "prepare", "Prepared", false;
    Activate, 1, "activate", "Activated", true;
    Taint, 2, "taint", "Tainted", true;
    Revoke, 3, "revoke", "Revoked", true;
}

pub struct Show<K>(PhantomData<K>);

impl<K: Kind> ClientCommand for Show<K> {
    const NAME: &'static str = K::SHOW;
    const API: Api = Api::Server;

    fn flags(_: &mut FlagSet) -> Self {
        Self(PhantomData)
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let rpc = format!("Get{}AuthorityState", K::RPC);
        let method = format!("{PACKAGE}.LocalAuthority/{rpc}");
        let found = session.unary(&method, GetX509AuthorityStateRequest {}).await;
        let found: GetX509AuthorityStateResponse = match K::SHOW_FAILED {
            Some(failed) => found.context(failed)?,
            None => found?,
        };
        session.answer(&format!("{PACKAGE}.{rpc}Response"), &found, |found| {
            let slots = [("Active", &found.active), ("Prepared", &found.prepared), ("Old", &found.old)];
            let blocks = slots.map(|(slot, state)| {
                let none = || format!("  No {} {} authority found\n", slot.to_lowercase(), K::TITLE);
                let block = state.as_ref().map_or_else(none, state_text::<K>);
                format!("{slot} {} authority:\n{block}", K::TITLE)
            });
            Ok(blocks.join("\n"))
        })
    }
}

pub struct Change<K, V> {
    authority_id: Option<Flag<String>>,
    kind: PhantomData<(K, V)>,
}

impl<K: Kind, V: Verb> ClientCommand for Change<K, V> {
    const NAME: &'static str = K::CHANGES[V::INDEX];
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        let about = format!("ID of the {} authority to {}", K::TITLE, V::VERB);
        let authority_id = V::NEEDS_ID.then(|| flags.string("authorityID", "", &about));
        Self { authority_id, kind: PhantomData }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let authority_id = self.authority_id.as_ref().map(Flag::get).unwrap_or_default();
        if V::NEEDS_ID && authority_id.is_empty() {
            return Err(Failure::new("an authority ID is required"));
        }
        let rpc = format!("{}{}Authority", V::RPC, K::RPC);
        let method = format!("{PACKAGE}.LocalAuthority/{rpc}");
        let done = session.unary(&method, ActivateX509AuthorityRequest { authority_id }).await;
        let done: ActivateX509AuthorityResponse =
            done.context(format!("could not {} {} authority", V::VERB, K::TITLE))?;
        session.answer(&format!("{PACKAGE}.{rpc}Response"), &done, |done| {
            let (kind, what) = (K::TITLE, V::DONE.to_lowercase());
            let missing = || format!("internal error: expected to have {what} {kind} authority information");
            let state = done.activated_authority.as_ref().ok_or_else(|| Failure::new(missing()))?;
            Ok(format!("{} {kind} authority:\n{}", V::DONE, state_text::<K>(state)))
        })
    }
}

fn state_text<K: Kind>(state: &AuthorityState) -> String {
    let mut text = String::new();
    let expires = go::time_utc(state.expires_at);
    let _ = write!(text, "  Authority ID: {}\n  Expires at: {expires}\n", state.authority_id);
    let above = &state.upstream_authority_subject_key_id;
    if K::UPSTREAM && above.is_empty() {
        text.push_str("  Upstream authority ID: No upstream authority\n");
    } else if K::UPSTREAM {
        let _ = writeln!(text, "  Upstream authority Subject Key ID: {above}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_verbs() {
        assert_eq!(<Change<X509, Taint>>::NAME, "localauthority x509 taint");
        assert_eq!(<Change<Jwt, Prepare>>::NAME, "localauthority jwt prepare");
        for (i, verb) in [Prepare::VERB, Activate::VERB, Taint::VERB, Revoke::VERB].iter().enumerate() {
            assert!(X509::CHANGES[i].ends_with(verb) && Jwt::CHANGES[i].ends_with(verb));
        }
    }

    #[test]
    fn the_authority_above_is_told_for_x509_only() {
        let mut state =
            AuthorityState { authority_id: "a".into(), expires_at: 60, ..AuthorityState::default() };
        let own = "  Authority ID: a\n  Expires at: 1970-01-01 00:01:00 +0000 UTC\n";
        assert_eq!(state_text::<Jwt>(&state), own);
        assert_eq!(
            state_text::<X509>(&state),
            format!("{own}  Upstream authority ID: No upstream authority\n")
        );
        state.upstream_authority_subject_key_id = "b".into();
        assert_eq!(state_text::<X509>(&state), format!("{own}  Upstream authority Subject Key ID: b\n"));
    }
}
