//! What a list asks for, as SQL.

use steeple_datastore::model::Selector;
use steeple_datastore::{EntryFilter, Match, Result, validate};
use steeple_spiffe::TrustDomain;

use crate::conn::{Arg, Dialect};
use crate::rows::placeholders;
use crate::selectors::{SetTable, selector_args, set_conditions};

/// ` AND …` on `registered_entries E`, or nothing.
pub(crate) struct Condition<'a> {
    pub sql: String,
    pub args: Vec<Arg<'a>>,
}

impl<'a> Condition<'a> {
    pub fn of(filter: &'a EntryFilter, dialect: Dialect) -> Result<Self> {
        let mut condition = Self { sql: String::new(), args: Vec::new() };
        if let Some(id) = &filter.spiffe_id {
            condition.by_text("E.spiffe_id", id.as_str(), dialect);
        }
        if let Some(id) = &filter.parent_id {
            condition.by_text("E.parent_id", id.as_str(), dialect);
        }
        if let Some(hint) = &filter.hint {
            condition.by_text("E.hint", hint.as_str(), dialect);
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
            condition.by_trust_domains(trust_domains, *how, dialect);
        }
        Ok(condition)
    }

    fn add<T: Into<Arg<'a>>>(&mut self, sql: &str, args: impl IntoIterator<Item = T>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.args.extend(args.into_iter().map(Into::into));
    }

    fn by_text(&mut self, column: &str, value: &'a str, dialect: Dialect) {
        let (condition, times) = dialect.is(column);
        self.add(&condition, vec![value; times]);
    }

    fn by_set(
        &mut self,
        on: &SetTable,
        dialect: Dialect,
        members: &str,
        args: &[Arg<'a>],
        count: usize,
        how: Match,
    ) {
        for (condition, times) in set_conditions(on, dialect, members, count, how) {
            self.add(&condition, args.repeat(times));
        }
    }

    fn by_selectors(&mut self, selectors: &'a [Selector], how: Match, dialect: Dialect) {
        let args = selector_args(selectors);
        let count = args.len() / 2;
        let on =
            SetTable { table: "selectors", id: "registered_entry_id", item: "(type, value)", outer: "E.id" };
        self.by_set(&on, dialect, &dialect.pairs(count), &args, count, how);
    }

    fn by_trust_domains(&mut self, trust_domains: &'a [TrustDomain], how: Match, dialect: Dialect) {
        let mut names: Vec<&str> = trust_domains.iter().map(TrustDomain::as_id_str).collect();
        names.sort_unstable();
        names.dedup();
        let on = SetTable {
            table: "federated_registration_entries F INNER JOIN bundles B ON B.id = F.bundle_id",
            id: "F.registered_entry_id",
            item: "B.trust_domain",
            outer: "E.id",
        };
        let args: Vec<Arg<'a>> = names.iter().map(|name| Arg::from(*name)).collect();
        self.by_set(&on, dialect, &placeholders(names.len()), &args, names.len(), how);
    }
}
