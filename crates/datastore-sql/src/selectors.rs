//! Comparing stored sets (selectors, trust domains) with an asked one.

use steeple_datastore::Match;
use steeple_datastore::model::Selector;

use crate::conn::Arg;

/// Where the members of stored sets are.
pub(crate) struct SetTable {
    pub table: &'static str,
    /// Column that names the owner.
    pub id: &'static str,
    /// What is compared with the asked set.
    pub item: &'static str,
    /// The owner's id in the outer statement.
    pub outer: &'static str,
}

/// Each selector once, as arguments.
pub(crate) fn selector_args(selectors: &[Selector]) -> Vec<Arg<'_>> {
    let mut unique: Vec<&Selector> = selectors.iter().collect();
    unique.sort_unstable();
    unique.dedup();
    unique.into_iter().flat_map(|s| [Arg::from(s.kind.as_str()), Arg::from(s.value.as_str())]).collect()
}

/// Set comparison: a condition that starts from the asked members' index and, where nothing else may be stored, one
/// that looks for others. Both take the asked members as arguments.
pub(crate) fn set_condition(
    on: &SetTable,
    members: &str,
    count: usize,
    how: Match,
) -> (String, Option<String>) {
    let SetTable { table, id, item, outer } = on;
    let all = match how {
        Match::Exact | Match::Superset => format!(" GROUP BY {id} HAVING COUNT(*) = {count}"),
        Match::Subset | Match::Any => String::new(),
    };
    let some = format!("{outer} IN (SELECT {id} FROM {table} WHERE {item} IN ({members}){all})");
    let outside = match how {
        Match::Exact | Match::Subset => Some(format!(
            "NOT EXISTS (SELECT 1 FROM {table} WHERE {id} = {outer} AND {item} NOT IN ({members}))"
        )),
        Match::Superset | Match::Any => None,
    };
    (some, outside)
}
