//! SPIRE's rules, recomputed from everything each time.

use super::*;

pub struct Model {
    trust_domain: TrustDomain,
    pub entries: BTreeMap<String, Entry>,
    pub agents: BTreeMap<SpiffeId, Agent>,
}

impl Model {
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, entries: BTreeMap::new(), agents: BTreeMap::new() }
    }

    pub fn authorized(&self, agent: &SpiffeId) -> BTreeMap<String, Entry> {
        let ours = |entry: &&Entry| {
            entry.parent_id.is_member_of(&self.trust_domain)
                && entry.spiffe_id.is_member_of(&self.trust_domain)
        };
        let (aliases, workloads): (Vec<&Entry>, Vec<&Entry>) =
            self.entries.values().filter(ours).partition(|entry| entry.parent_id.path() == "/spire/server");
        let has: BTreeSet<&Selector> =
            self.agents.get(agent).iter().flat_map(|agent| &agent.selectors).collect();
        let mut names = BTreeSet::from([agent.clone()]);
        for alias in aliases {
            if !alias.selectors.is_empty() && alias.selectors.iter().all(|selector| has.contains(selector)) {
                names.insert(alias.spiffe_id.clone());
            }
        }
        loop {
            let below = workloads.iter().filter(|entry| names.contains(&entry.parent_id));
            let more: BTreeSet<SpiffeId> = below.map(|entry| entry.spiffe_id.clone()).collect();
            let before = names.len();
            names.extend(more);
            if names.len() == before {
                break;
            }
        }
        let found = workloads.into_iter().filter(|entry| names.contains(&entry.parent_id));
        found.map(|entry| (entry.id.clone(), entry.clone())).collect()
    }
}
