//! Comparing stored sets (selectors, trust domains) with an asked one.

use steeple_datastore::Match;
use steeple_datastore::model::Selector;

use crate::conn::{Arg, Dialect};

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
/// that looks for others. Each takes the asked members as arguments as often as it says.
pub(crate) fn set_conditions(
    on: &SetTable,
    dialect: Dialect,
    members: &str,
    count: usize,
    how: Match,
) -> Vec<(String, usize)> {
    let SetTable { table, id, item, outer } = on;
    let all = match how {
        Match::Exact | Match::Superset => format!(" GROUP BY {id} HAVING COUNT(*) = {count}"),
        Match::Subset | Match::Any => String::new(),
    };
    // MySQL's index does not tell cases apart.
    let exact = dialect.exact(item);
    let (also, times) =
        if exact == *item { (String::new(), 1) } else { (format!(" AND {exact} IN ({members})"), 2) };
    let some = format!("{outer} IN (SELECT {id} FROM {table} WHERE {item} IN ({members}){also}{all})");
    let outside =
        format!("NOT EXISTS (SELECT 1 FROM {table} WHERE {id} = {outer} AND {exact} NOT IN ({members}))");
    match how {
        Match::Exact | Match::Subset => vec![(some, times), (outside, 1)],
        Match::Superset | Match::Any => vec![(some, times)],
    }
}
