//! Tables as ordered maps, every rule spelled out in the plainest way.

mod federation;

use std::collections::{BTreeMap, VecDeque};

use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{SpiffeId, TrustDomain};

use crate::authority::{self, AuthorityChange};
use crate::error::{Error, Result};
use crate::federation::FederationRelationship;
use crate::log::{Change, Logged, Revision, RotatedAgent, Snapshot};
use crate::merge::{self, Pruned};
use crate::model::{AdditionalAttributes, Agent, CaJournal, Entry, JoinToken, Selector};
use crate::port::{
    AgentFilter, AgentUpdate, BundleDeleteMode, BundleMask, Created, EntryFilter, EntryIds, EntryMask, Match,
    Page, PageRequest, PrunedBundle,
};
use crate::validate;

#[derive(Debug)]
pub(super) struct State {
    pub head: Revision,
    log: VecDeque<Logged>,
    log_id: String,
    last_row: u64,
    /// Tables by row id.
    pub entries: BTreeMap<u64, Entry>,
    pub agents: BTreeMap<u64, Agent>,
    pub bundles: BTreeMap<u64, Bundle>,
    pub journals: BTreeMap<u64, CaJournal>,
    /// Without bundles.
    relationships: BTreeMap<u64, FederationRelationship>,
    pub tokens: BTreeMap<String, i64>,
}

impl State {
    pub fn new() -> Self {
        Self {
            head: Revision(0),
            log: VecDeque::new(),
            log_id: uuid::Uuid::new_v4().to_string(),
            last_row: 0,
            entries: BTreeMap::new(),
            agents: BTreeMap::new(),
            bundles: BTreeMap::new(),
            journals: BTreeMap::new(),
            relationships: BTreeMap::new(),
            tokens: BTreeMap::new(),
        }
    }

    fn next_row(&mut self) -> u64 {
        self.last_row += 1;
        self.last_row
    }

    fn changed(&mut self, change: Change) {
        self.head.0 += 1;
        self.log.push_back(Logged { revision: self.head, change });
    }

    pub fn changes_since(&self, after: Revision, limit: usize) -> Result<Vec<Logged>> {
        let trimmed = self.head.0 - self.log.len() as u64;
        if after.0 < trimmed || after > self.head {
            return Err(Error::LogTruncated(after.0.saturating_add(1)));
        }
        Ok(self.log.iter().filter(|logged| logged.revision > after).take(limit).cloned().collect())
    }

    pub fn trim_log(&mut self, keep: u64) -> u64 {
        let gone = (self.log.len() as u64).saturating_sub(keep);
        self.log.drain(..gone as usize);
        gone
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            revision: self.head,
            log_id: self.log_id.clone(),
            entries: self.entries.values().cloned().collect(),
            agents: self.agents.values().cloned().collect(),
            bundles: self.bundles.values().cloned().collect(),
            rotated_agents: (self.log.iter())
                .filter_map(|logged| match &logged.change {
                    Change::AgentRotated(rotated) => Some(rotated.clone()),
                    _ => None,
                })
                .collect(),
        }
    }

    pub fn create_entry(&mut self, mut entry: Entry, now: i64) -> Result<Created> {
        validate::new_entry(&entry)?;
        let similar = self.entries.values().find(|stored| {
            stored.spiffe_id == entry.spiffe_id
                && stored.parent_id == entry.parent_id
                && Match::Exact.holds(&stored.selectors, &entry.selectors)
        });
        if let Some(similar) = similar {
            return Ok(Created::Existing(similar.clone()));
        }
        if entry.id.is_empty() {
            entry.id = uuid::Uuid::new_v4().to_string();
        }
        if self.entries.values().any(|stored| stored.id == entry.id) {
            return validate::taken("registered_entries.entry_id");
        }
        self.check_children(&entry)?;
        merge::normalize_federates_with(&mut entry);
        entry.additional = entry.additional.filter(|a| *a != AdditionalAttributes::default());
        entry.revision_number = 0;
        entry.created_at = now;
        let row = self.next_row();
        self.entries.insert(row, entry.clone());
        self.changed(Change::EntrySet(Box::new(entry.clone())));
        Ok(Created::New(merge::as_answered(entry)))
    }

    fn check_children(&self, entry: &Entry) -> Result<()> {
        for trust_domain in &entry.federates_with {
            if self.bundle_row(trust_domain).is_none() {
                return Err(Error::UnknownFederatedBundle(trust_domain.clone()));
            }
        }
        validate::entry_children(entry)
    }

    pub fn list_entries(&self, filter: &EntryFilter, page: &PageRequest) -> Result<Page<Entry>> {
        if let Some((selectors, _)) = &filter.selectors {
            validate::filter_set(selectors.is_empty(), "selector")?;
        }
        if let Some((trust_domains, _)) = &filter.federates_with {
            validate::filter_set(trust_domains.is_empty(), "trust domain")?;
        }
        paged(&self.entries, page, |entry| {
            filter.spiffe_id.as_ref().is_none_or(|id| *id == entry.spiffe_id)
                && filter.parent_id.as_ref().is_none_or(|id| *id == entry.parent_id)
                && filter.hint.as_ref().is_none_or(|hint| *hint == entry.hint)
                && (filter.downstream != Some(true) || entry.downstream)
                && set_matches(filter.selectors.as_ref(), &entry.selectors)
                && set_matches(filter.federates_with.as_ref(), &entry.federates_with)
        })
    }

    pub fn list_entry_ids(&self, filter: &EntryFilter, page: &PageRequest) -> Result<EntryIds> {
        let Page { items, next_token } = self.list_entries(filter, page)?;
        let items = items.into_iter().map(|entry| entry.id).collect();
        let page = Page { items, next_token };
        Ok(EntryIds { page, revision: self.head, log_id: self.log_id.clone() })
    }

    pub fn update_entry(&mut self, new: Entry, mask: EntryMask) -> Result<Option<Entry>> {
        validate::entry_update(&new, mask)?;
        let Some((&row, stored)) = self.entries.iter().find(|(_, stored)| stored.id == new.id) else {
            return Ok(None);
        };
        let mut entry = stored.clone();
        merge::update_entry(&mut entry, new, mask);
        validate::updated_entry(&entry)?;
        self.check_children(&entry)?;
        entry.additional = entry.additional.filter(|a| *a != AdditionalAttributes::default());
        self.entries.insert(row, entry.clone());
        self.changed(Change::EntrySet(Box::new(entry.clone())));
        Ok(Some(merge::as_answered(entry)))
    }

    pub fn rotate_entry(&mut self, id: &str) -> bool {
        let Some(entry) = self.entries.values_mut().find(|stored| stored.id == id) else { return false };
        entry.revision_number += 1;
        let change = Change::EntryRotated(Box::new(entry.clone()));
        self.changed(change);
        true
    }

    pub fn delete_entry(&mut self, id: &str) -> bool {
        let row = self.entries.iter().find(|(_, stored)| stored.id == id).map(|(row, _)| *row);
        row.is_some_and(|row| self.remove_entry(row).is_some())
    }

    fn remove_entry(&mut self, row: u64) -> Option<Entry> {
        let entry = self.entries.remove(&row)?;
        self.changed(Change::EntryGone { id: entry.id.clone() });
        Some(entry)
    }

    fn remove_entries(&mut self, gone: impl Fn(&Entry) -> bool) -> u64 {
        let rows: Vec<u64> =
            self.entries.iter().filter(|(_, entry)| gone(entry)).map(|(row, _)| *row).collect();
        for row in &rows {
            self.remove_entry(*row);
        }
        rows.len() as u64
    }

    pub fn prune_entries(&mut self, before: i64) -> u64 {
        self.remove_entries(|entry| entry.expires_at != 0 && entry.expires_at < before)
    }

    pub fn put_agent(&mut self, agent: Agent) -> Result<()> {
        let agent = self.admissible(agent)?;
        self.set_agent(agent);
        Ok(())
    }

    pub fn put_agent_for_token(&mut self, token: &str, agent: Agent) -> Result<bool> {
        if !self.tokens.contains_key(token) {
            return Ok(false);
        }
        let agent = self.admissible(agent)?;
        self.take_join_token(token);
        self.set_agent(agent);
        Ok(true)
    }

    fn admissible(&self, mut agent: Agent) -> Result<Agent> {
        validate::agent_selectors(&agent.selectors)?;
        if let Some(stored) = self.agent_row(&agent.id).and_then(|row| self.agents.get(&row)) {
            agent.replaces(stored)?;
        }
        Ok(agent)
    }

    fn set_agent(&mut self, agent: Agent) {
        let row = self.agent_row(&agent.id).unwrap_or_else(|| self.next_row());
        self.agents.insert(row, agent.clone());
        self.changed(Change::AgentSet(Box::new(agent)));
    }

    fn agent_row(&self, id: &SpiffeId) -> Option<u64> {
        self.agents.iter().find(|(_, agent)| agent.id == *id).map(|(row, _)| *row)
    }

    pub fn list_agents(&self, filter: &AgentFilter, page: &PageRequest) -> Result<Page<Agent>> {
        if let Some((selectors, _)) = &filter.selectors {
            validate::filter_set(selectors.is_empty(), "selectors")?;
        }
        paged(&self.agents, page, |agent| {
            filter.attestation_type.as_ref().is_none_or(|kind| *kind == agent.attestation_type)
                && filter.banned.is_none_or(|banned| banned == agent.is_banned())
                && filter.can_reattest.is_none_or(|can| can == agent.can_reattest)
                && filter.expires_before.is_none_or(|before| agent.expires_at < before)
                && set_matches(filter.selectors.as_ref(), &agent.selectors)
        })
    }

    pub fn update_agent(&mut self, id: &SpiffeId, update: AgentUpdate) -> Option<Agent> {
        let row = self.agent_row(id)?;
        let stored = self.agents.get(&row)?.clone();
        let agent = update.apply(stored.clone());
        if agent != stored {
            self.agents.insert(row, agent.clone());
            self.changed(Change::AgentSet(Box::new(agent.clone())));
        }
        Some(agent)
    }

    pub fn promote_agent_serial(&mut self, id: &SpiffeId, serial: &str) -> Option<Agent> {
        let row = self.agent_row(id)?;
        let agent = self.agents.get(&row)?.promoted(serial)?;
        self.agents.insert(row, agent.clone());
        self.changed(Change::AgentSet(Box::new(agent.clone())));
        Some(agent)
    }

    pub fn rotate_agent(&mut self, id: &SpiffeId, now: i64) -> Option<Agent> {
        let agent = self.agents.get(&self.agent_row(id)?)?.clone();
        if !agent.is_banned() {
            self.changed(Change::AgentRotated(RotatedAgent { id: id.clone(), ordered_at: now }));
        }
        Some(agent)
    }

    pub fn delete_agent(&mut self, id: &SpiffeId) -> Option<Agent> {
        let agent = self.agents.remove(&self.agent_row(id)?)?;
        if agent.attestation_type == "join_token" {
            let alias = [Selector::new("spiffe_id", id.as_str())];
            self.remove_entries(|entry| entry.parent_id == *id && entry.selectors == alias);
        }
        self.changed(Change::AgentGone { id: id.clone() });
        Some(agent)
    }

    pub fn prune_agents(&mut self, before: i64, include_non_reattestable: bool, limit: u32) -> u64 {
        let ids: Vec<SpiffeId> = self
            .agents
            .values()
            .filter(|agent| agent.expires_at < before && !agent.is_banned())
            .filter(|agent| include_non_reattestable || agent.can_reattest)
            .take(limit as usize)
            .map(|agent| agent.id.clone())
            .collect();
        for id in &ids {
            self.delete_agent(id);
        }
        ids.len() as u64
    }

    pub fn create_join_token(&mut self, token: JoinToken) -> Result<()> {
        validate::new_join_token(&token.token, token.expires_at)?;
        if self.tokens.contains_key(&token.token) {
            return validate::taken("join_tokens.token");
        }
        self.tokens.insert(token.token, token.expires_at);
        self.changed(Change::Other);
        Ok(())
    }

    pub fn take_join_token(&mut self, token: &str) -> Option<JoinToken> {
        let expires_at = self.tokens.remove(token)?;
        self.changed(Change::Other);
        Some(JoinToken { token: token.into(), expires_at })
    }

    pub fn prune_join_tokens(&mut self, before: i64) -> u64 {
        let stored = self.tokens.len();
        self.tokens.retain(|_, expires_at| *expires_at >= before);
        let gone = stored - self.tokens.len();
        if gone > 0 {
            self.changed(Change::Other);
        }
        gone as u64
    }

    fn bundle_row(&self, trust_domain: &TrustDomain) -> Option<u64> {
        self.bundles.iter().find(|(_, bundle)| bundle.trust_domain == *trust_domain).map(|(row, _)| *row)
    }

    pub fn list_bundles(&self, page: &PageRequest) -> Result<Page<Bundle>> {
        paged(&self.bundles, page, |_| true)
    }

    pub fn create_bundle(&mut self, bundle: Bundle) -> Result<Bundle> {
        if self.bundle_row(&bundle.trust_domain).is_some() {
            return validate::taken("bundles.trust_domain");
        }
        let row = self.next_row();
        self.bundles.insert(row, bundle.clone());
        self.changed(Change::bundle_set(&bundle));
        Ok(bundle)
    }

    /// Runs `change` on a stored bundle and logs it if something came of it.
    fn change_bundle<T>(
        &mut self,
        trust_domain: &TrustDomain,
        change: impl FnOnce(&mut Bundle) -> T,
    ) -> Option<(Bundle, T)> {
        let row = self.bundle_row(trust_domain)?;
        let stored = self.bundles.get(&row)?.clone();
        let mut bundle = stored.clone();
        let result = change(&mut bundle);
        if bundle != stored {
            self.bundles.insert(row, bundle.clone());
            self.changed(Change::bundle_set(&bundle));
        }
        Some((bundle, result))
    }

    pub fn update_bundle(&mut self, new: Bundle, mask: BundleMask) -> Option<Bundle> {
        let trust_domain = new.trust_domain.clone();
        let (bundle, ()) =
            self.change_bundle(&trust_domain, |bundle| merge::update_bundle(bundle, new, mask))?;
        Some(bundle)
    }

    pub fn append_bundle(&mut self, new: Bundle) -> Result<Bundle> {
        let added = new.clone();
        match self.change_bundle(&new.trust_domain, |bundle| merge::append_bundle(bundle, added)) {
            Some((bundle, _)) => Ok(bundle),
            None => self.create_bundle(new),
        }
    }

    pub fn delete_bundle(
        &mut self,
        trust_domain: &TrustDomain,
        mode: BundleDeleteMode,
    ) -> Result<Option<Bundle>> {
        let Some(row) = self.bundle_row(trust_domain) else {
            return Ok(None);
        };
        let rows: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.federates_with.contains(trust_domain))
            .map(|(row, _)| *row)
            .collect();
        if !rows.is_empty() && mode == BundleDeleteMode::Restrict {
            return Err(Error::FailedPrecondition(format!(
                "cannot delete bundle; federated with {} registration entries",
                rows.len()
            )));
        }
        for row in rows {
            if mode == BundleDeleteMode::Delete {
                self.remove_entry(row);
            } else if let Some(entry) = self.entries.get_mut(&row) {
                entry.federates_with.retain(|other| other != trust_domain);
                entry.revision_number += 1;
                let entry = entry.clone();
                self.changed(Change::EntrySet(Box::new(entry)));
            }
        }
        let bundle = self.bundles.remove(&row);
        self.changed(Change::BundleGone { trust_domain: trust_domain.clone() });
        Ok(bundle)
    }

    pub fn prune_bundle(&mut self, trust_domain: &TrustDomain, before: i64) -> PrunedBundle {
        let pruned = self.change_bundle(trust_domain, |bundle| merge::prune_bundle(bundle, before));
        PrunedBundle { changed: pruned.is_some_and(|(_, pruned)| pruned == Pruned::Changed) }
    }

    pub fn change_authority(
        &mut self,
        trust_domain: &TrustDomain,
        change: &AuthorityChange,
    ) -> Result<Option<Bundle>> {
        match self.change_bundle(trust_domain, |bundle| authority::change(bundle, change)) {
            Some((bundle, outcome)) => outcome.map(|()| Some(bundle)),
            None => Ok(None),
        }
    }

    pub fn put_ca_journal(&mut self, mut journal: CaJournal) -> Result<CaJournal> {
        if journal.id == 0 {
            journal.id = self.next_row();
        } else if !self.journals.contains_key(&journal.id) {
            return Err(Error::NotFound("record not found".into()));
        }
        self.journals.insert(journal.id, journal.clone());
        self.changed(Change::Other);
        Ok(journal)
    }

    pub fn delete_ca_journal(&mut self, id: u64) {
        if self.journals.remove(&id).is_some() {
            self.changed(Change::Other);
        }
    }
}

fn set_matches<T: PartialEq>(asked: Option<&(Vec<T>, Match)>, stored: &[T]) -> bool {
    asked.is_none_or(|(asked, how)| how.holds(stored, asked))
}

fn paged<T: Clone>(
    table: &BTreeMap<u64, T>,
    page: &PageRequest,
    wanted: impl Fn(&T) -> bool,
) -> Result<Page<T>> {
    let size = if page.size == 0 { usize::MAX } else { page.size as usize };
    let after = page.after()?;
    let mut result = Page { items: Vec::new(), next_token: String::new() };
    let mut last = 0;
    for (row, item) in table.iter().filter(|(row, item)| **row > after && wanted(item)) {
        if result.items.len() == size {
            result.next_token = last.to_string();
            break;
        }
        result.items.push(item.clone());
        last = *row;
    }
    Ok(result)
}
