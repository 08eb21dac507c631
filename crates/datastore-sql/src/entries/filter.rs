//! What a list asks for, as SQL.

use steeple_datastore::model::Selector;
use steeple_datastore::{EntryFilter, Match, Result, validate};
use steeple_spiffe::TrustDomain;

use crate::conn::{Arg, Dialect};
use crate::rows::placeholders;
use crate::selectors::{SetTable, selector_args, set_condition};

/// ` AND …` on `registered_entries E`, or nothing.
pub(crate) struct Condition<'a> {
    pub sql: String,
    pub args: Vec<Arg<'a>>,
}

impl<'a> Condition<'a> {
    pub fn of(filter: &'a EntryFilter, dialect: Dialect) -> Result<Self> {
        let mut condition = Self { sql: String::new(), args: Vec::new() };
        if let Some(id) = &filter.spiffe_id {
            condition.add("E.spiffe_id = ?", [id.as_str()]);
        }
        if let Some(id) = &filter.parent_id {
            condition.add("E.parent_id = ?", [id.as_str()]);
        }
        if let Some(hint) = &filter.hint {
            condition.add("E.hint = ?", [hint.as_str()]);
        }
        if filter.downstream == Some(true) {
            condition.add("E.downstream = ?", [true]);
        }
        if let Some((selectors, how)) = &filter.selectors {
            validate::filter_set(selectors.is_empty(), "selector")?;
            condition.by_selectors(selectors, *how, dialect);
        }
        if let Some((trust_domains, how)) = &filter.federates_with {
            validate::filter_set(trust_domains.is_empty(), "trust domain")?;
            condition.by_trust_domains(trust_domains, *how);
        }
        Ok(condition)
    }

    fn add<T: Into<Arg<'a>>>(&mut self, sql: &str, args: impl IntoIterator<Item = T>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.args.extend(args.into_iter().map(Into::into));
    }

    fn by_selectors(&mut self, selectors: &'a [Selector], how: Match, dialect: Dialect) {
        let args = selector_args(selectors);
        let count = args.len() / 2;
        let (some, outside) = set_condition(
            &SetTable { table: "selectors", id: "registered_entry_id", item: "(type, value)", outer: "E.id" },
            &dialect.pairs(count),
            count,
            how,
        );
        self.add(&some, args.clone());
        if let Some(outside) = outside {
            self.add(&outside, args);
        }
    }

    fn by_trust_domains(&mut self, trust_domains: &'a [TrustDomain], how: Match) {
        let mut names: Vec<&str> = trust_domains.iter().map(TrustDomain::as_id_str).collect();
        names.sort_unstable();
        names.dedup();
        let (some, outside) = set_condition(
            &SetTable {
                table: "federated_registration_entries F INNER JOIN bundles B ON B.id = F.bundle_id",
                id: "F.registered_entry_id",
                item: "B.trust_domain",
                outer: "E.id",
            },
            &placeholders(names.len()),
            names.len(),
            how,
        );
        self.add(&some, names.clone());
        if let Some(outside) = outside {
            self.add(&outside, names);
        }
    }
}
