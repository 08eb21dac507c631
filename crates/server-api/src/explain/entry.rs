//! One entry: who gets it, what it lacks, how long its SVIDs live.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use steeple_datastore::model::{Entry, Selector};
use steeple_proto::steeple::server::v1 as pb;
use steeple_runtime::reason::Reason;
use steeple_server_core::index::EntryIndex;
use steeple_server_core::view::Bundles;
use steeple_spiffe::{SpiffeId, TrustDomain};

use super::told;

/// The selectors that a workload has: values by type.
#[derive(Debug)]
pub(super) struct Has(pub HashMap<String, HashSet<String>>);

/// What holds for every entry.
pub(super) struct Setting {
    /// Seconds.
    pub default_ttl: i64,
    /// Of the authority that signs now; 0 if there is none.
    pub authority_expires_at: i64,
    pub bundles: Bundles,
    pub trust_domain: TrustDomain,
    pub now: i64,
}

/// An entry that lacks more is not near.
const MOST_MISSING: usize = 2;
/// Agents that are named.
const MOST_AGENTS: usize = 20;

impl Has {
    fn missing<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = String> + 'a {
        let lacks =
            |one: &&Selector| !self.0.get(&one.kind).is_some_and(|values| values.contains(&one.value));
        entry.selectors.iter().filter(lacks).map(ToString::to_string)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An entry without selectors is nobody's.
    pub fn all_of(&self, entry: &Entry) -> bool {
        !entry.selectors.is_empty() && self.missing(entry).next().is_none()
    }

    /// How many selectors are missing, if they are few and some are there.
    pub fn nearly(&self, entry: &Entry) -> Option<usize> {
        let missing = self.missing(entry).take(MOST_MISSING + 1).count();
        (missing <= MOST_MISSING && missing < entry.selectors.len()).then_some(missing)
    }
}

/// Whether nobody gets an SVID of an entry with this reason.
pub(super) fn blocks(code: &str) -> bool {
    let blocking = [
        Reason::SelectorMissing,
        Reason::ParentNotReached,
        Reason::EntryForStore,
        Reason::ForeignTrustDomain,
    ];
    blocking.iter().any(|reason| reason.code() == code)
}

pub(super) fn finding(
    index: &EntryIndex,
    entry: &Arc<Entry>,
    agent: Option<&SpiffeId>,
    has: Option<&Has>,
    setting: &Setting,
) -> pb::EntryFinding {
    let agents = index.agents_of(&entry.id);
    let chain = agent.and_then(|agent| index.lineage(agent, &entry.id));
    let reached = match agent {
        Some(agent) => chain.is_some() || agents.contains(agent),
        None => !agents.is_empty(),
    };
    let missing: Vec<String> = has.map(|has| has.missing(entry).collect()).unwrap_or_default();
    let lifetime = lifetime(entry, setting);
    let mut reasons = Vec::new();
    let id = &entry.id;
    if entry.spiffe_id.trust_domain() != setting.trust_domain {
        let own = &setting.trust_domain;
        reasons.push(told(
            Reason::ForeignTrustDomain,
            format!(
                "Entry {id} is of trust domain {}, this server of {own}.",
                entry.spiffe_id.trust_domain()
            ),
        ));
    }
    if !missing.is_empty() {
        let text =
            format!("Entry {id} ({}) asks for {}, which is not there.", entry.spiffe_id, missing.join(", "));
        reasons.push(told(Reason::SelectorMissing, text));
    }
    if !reached {
        reasons.push(told(Reason::ParentNotReached, not_reached(index, entry, agent)));
    }
    if entry.store_svid {
        reasons.push(told(Reason::EntryForStore, format!("Entry {id} is for an SVID store.")));
    }
    if entry.expires_at != 0 && entry.expires_at <= setting.now {
        let when = crate::rpc::rfc3339(entry.expires_at);
        reasons.push(told(Reason::EntryExpired, format!("Entry {id} expired at {when}.")));
    }
    let asked = if lifetime.entry_ttl == 0 { lifetime.default_ttl } else { lifetime.entry_ttl };
    if lifetime.ttl < asked {
        let text = format!(
            "SVIDs of entry {id} live {} s instead of {asked} s: the authority ends then.",
            lifetime.ttl
        );
        reasons.push(told(Reason::TtlClamped, text));
    }
    for trust_domain in entry.federates_with.iter().filter(|td| !setting.bundles.contains_key(*td)) {
        let text = format!("Entry {id} federates with {trust_domain}, whose bundle is not there.");
        reasons.push(told(Reason::FederatedBundleMissing, text));
    }
    if entry.admin || entry.downstream {
        let flag = if entry.admin { "admin" } else { "downstream" };
        reasons.push(told(
            Reason::DelegateWithheld,
            format!("Entry {id} has `{flag}`: delegates never receive it."),
        ));
    }
    pb::EntryFinding {
        entry_id: entry.id.clone(),
        spiffe_id: entry.spiffe_id.to_string(),
        parent_id: entry.parent_id.to_string(),
        selectors: entry.selectors.iter().map(ToString::to_string).collect(),
        missing_selectors: missing,
        chain: chain.unwrap_or_default().iter().map(ToString::to_string).collect(),
        agent_count: i64::try_from(agents.len()).unwrap_or(i64::MAX),
        agents: agents.iter().take(MOST_AGENTS).map(ToString::to_string).collect(),
        expires_at: entry.expires_at,
        admin: entry.admin,
        downstream: entry.downstream,
        store_svid: entry.store_svid,
        lifetime: Some(lifetime),
        reasons,
        reached,
    }
}

fn not_reached(index: &EntryIndex, entry: &Entry, agent: Option<&SpiffeId>) -> String {
    let (id, parent) = (&entry.id, &entry.parent_id);
    if index.is_alias(id) {
        return format!("Entry {id} is an alias whose selectors no attested agent has.");
    }
    match agent {
        Some(agent) => {
            let names: Vec<String> = std::iter::once(agent.clone())
                .chain(index.aliases_of(agent))
                .map(|name| name.to_string())
                .collect();
            format!(
                "The parent {parent} of entry {id} does not lead to the agent, which goes by {}.",
                names.join(", ")
            )
        }
        None => format!("The parent {parent} of entry {id} leads to no attested agent."),
    }
}

fn lifetime(entry: &Entry, setting: &Setting) -> pb::Lifetime {
    let entry_ttl = i64::from(entry.x509_svid_ttl);
    let asked = if entry_ttl == 0 { setting.default_ttl } else { entry_ttl };
    let left = setting.authority_expires_at.saturating_sub(setting.now).max(0);
    pb::Lifetime {
        entry_ttl,
        default_ttl: setting.default_ttl,
        ttl: asked.min(left),
        authority_expires_at: setting.authority_expires_at,
    }
}
