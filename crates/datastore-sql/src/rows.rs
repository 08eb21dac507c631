//! Reading rows in bulk: the children of many rows in few statements.

use steeple_datastore::Result;

use crate::conn::{Arg, Conn};

/// Ids to look up in one statement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// All rows between two ids, bounds included.
    Span(i64, i64),
    /// These rows.
    Set(Vec<i64>),
}

/// Cuts ascending ids into lookups. Dense ids are one span, which may hit rows that were not asked for; sparse ones are
/// sets of few fixed sizes, so that their statements stay prepared.
pub(crate) fn lookups(ids: &[i64]) -> Vec<Ids> {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else {
        return Vec::new();
    };
    if last - first < 4 * ids.len() as i64 {
        return vec![Ids::Span(*first, *last)];
    }
    ids.chunks(SET_SIZES[SET_SIZES.len() - 1])
        .map(|chunk| {
            let size = SET_SIZES.into_iter().find(|size| *size >= chunk.len()).unwrap_or(chunk.len());
            let mut set = chunk.to_vec();
            // The same id twice selects nothing twice.
            set.resize(size, chunk[chunk.len() - 1]);
            Ids::Set(set)
        })
        .collect()
}

const SET_SIZES: [usize; 5] = [1, 8, 64, 256, 512];

impl Ids {
    pub fn condition(&self, column: &str) -> String {
        match self {
            Self::Span(..) => format!("{column} BETWEEN ? AND ?"),
            Self::Set(ids) => format!("{column} IN ({})", placeholders(ids.len())),
        }
    }

    pub fn args(&self) -> Vec<Arg<'static>> {
        match self {
            Self::Span(first, last) => vec![Arg::Int(*first), Arg::Int(*last)],
            Self::Set(ids) => ids.iter().map(|id| Arg::Int(*id)).collect(),
        }
    }
}

/// `?, ?, ?`
pub(crate) fn placeholders(count: usize) -> String {
    vec!["?"; count].join(", ")
}

/// A list, not empty, made as long as one of few sizes, so that statements stay prepared: its last item again selects
/// nothing more.
pub(crate) fn padded<T: Copy>(mut list: Vec<T>) -> Vec<T> {
    if let Some(last) = list.last().copied() {
        let size = SET_SIZES.into_iter().find(|size| *size >= list.len()).unwrap_or(list.len());
        list.resize(size, last);
    }
    list
}

/// Inserts rows, many in one statement: `insert` is what stands before `VALUES`.
pub(crate) fn insert_many<T, const N: usize>(
    conn: &Conn,
    insert: &str,
    rows: &[T],
    args: impl for<'r> Fn(&'r T) -> [Arg<'r>; N],
) -> Result<()> {
    let one = format!("({})", placeholders(N));
    let mut rest = rows;
    while !rest.is_empty() {
        // Few sizes, so that their statements stay prepared.
        let size = INSERT_SIZES.into_iter().find(|size| *size <= rest.len()).unwrap_or(1);
        let (these, others) = rest.split_at(size);
        rest = others;
        let sql = format!("{insert} VALUES {}", vec![one.as_str(); size].join(", "));
        let all: Vec<Arg<'_>> = these.iter().flat_map(&args).collect();
        conn.exec(&sql, &all)?;
    }
    Ok(())
}

const INSERT_SIZES: [usize; 5] = [256, 64, 16, 4, 1];

/// Hands children, which come ordered by parent id, to their parents, which are ordered too.
pub(crate) struct Cursor<'a, P> {
    parents: &'a mut [P],
    at: usize,
}

impl<'a, P> Cursor<'a, P> {
    pub fn new(parents: &'a mut [P]) -> Self {
        Self { parents, at: 0 }
    }

    /// The parent with this id, if it was asked for.
    pub fn seek(&mut self, id: i64, id_of: impl Fn(&P) -> i64) -> Option<&mut P> {
        while self.at < self.parents.len() && id_of(&self.parents[self.at]) < id {
            self.at += 1;
        }
        self.parents.get_mut(self.at).filter(|parent| id_of(parent) == id)
    }
}

/// Puts each parent's children in the order of their ids. An engine asked for that order would sort all rows, which it
/// reads from an index that has another one.
#[derive(Default)]
pub(crate) struct InOrder {
    /// Of the children that the present parent has.
    ids: Vec<i64>,
}

impl InOrder {
    /// All children of one parent come one after another.
    pub fn insert<T>(&mut self, children: &mut Vec<T>, id: i64, child: T) {
        if children.is_empty() {
            self.ids.clear();
        }
        let at = self.ids.partition_point(|before| *before < id);
        self.ids.insert(at, id);
        children.insert(at, child);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_in_the_order_of_their_ids() {
        let mut order = InOrder::default();
        let mut parents = [Vec::new(), Vec::new()];
        for (parent, id) in [(0, 7), (0, 3), (0, 9), (0, 4), (1, 2), (1, 8), (1, 1)] {
            order.insert(&mut parents[parent], id, id);
        }
        assert_eq!(parents, [vec![3, 4, 7, 9], vec![1, 2, 8]]);
    }

    #[test]
    fn dense_ids_are_a_span_sparse_ones_are_sets() {
        assert!(lookups(&[]).is_empty());
        assert_eq!(lookups(&[7]), [Ids::Span(7, 7)]);
        assert_eq!(lookups(&[3, 4, 9]), [Ids::Span(3, 9)]);
        assert_eq!(lookups(&[3, 400]), [Ids::Set(vec![3, 400, 400, 400, 400, 400, 400, 400])]);
        let sparse: Vec<i64> = (0..600).map(|n| n * 10).collect();
        let sizes: Vec<usize> = lookups(&sparse).iter().map(|ids| ids.args().len()).collect();
        assert_eq!(sizes, [512, 256]);
    }

    #[test]
    fn children_find_their_parents() {
        let mut parents = [(1, 0), (4, 0), (9, 0)];
        let mut cursor = Cursor::new(&mut parents);
        for id in [1, 1, 3, 9, 9, 10] {
            if let Some(parent) = cursor.seek(id, |parent| parent.0) {
                parent.1 += 1;
            }
        }
        assert_eq!(parents, [(1, 2), (4, 0), (9, 2)]);
    }
}
