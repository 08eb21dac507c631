//! The selector that somebody probably meant.

/// More than this many edits is another selector.
const MOST_EDITS: usize = 2;
/// Longer ones are compared no further: what others wrote must not cost much.
const LONGEST: usize = 512;

/// The candidate that differs from `wanted` in case only, or by at most two letters of many (one letter less, more or
/// other counts one). `None` if there is none.
pub fn nearest<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (kind, value) = wanted.split_once(':')?;
    let most = most_edits(value);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let Some((candidate_kind, candidate_value)) = candidate.split_once(':') else { continue };
        let edits = if candidate_value == value {
            // The same fact under another attestor's name: docker for k8s.
            within(kind, candidate_kind, MOST_EDITS)
        } else if candidate_kind != kind {
            None
        } else if candidate_value.eq_ignore_ascii_case(value) || same_words(value, candidate_value) {
            Some(1)
        } else {
            within(value, candidate_value, most)
        };
        if let Some(edits) = edits.filter(|edits| best.is_none_or(|(fewest, _)| edits < &fewest)) {
            best = Some((edits, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Short values are easily near to others: `uid:1` is no misspelt `uid:2`.
fn most_edits(value: &str) -> usize {
    match value.len() {
        0..6 => 0,
        6..12 => 1,
        _ => MOST_EDITS,
    }
}

/// Nothing but white space differs.
fn same_words(a: &str, b: &str) -> bool {
    let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    a.len() <= LONGEST && b.len() <= LONGEST && letters(a) == letters(b)
}

/// Levenshtein's distance if it is at most `most`.
fn within(a: &str, b: &str, most: usize) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > most || a.len().max(b.len()) > LONGEST {
        return None;
    }
    let prefix = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[prefix..], &b[prefix..]);
    let suffix = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[..a.len() - suffix], &b[..b.len() - suffix]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        let mut least = row[0];
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
            least = least.min(row[j + 1]);
        }
        if least > most {
            return None;
        }
    }
    row.last().copied().filter(|edits| *edits <= most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn misspelt_selectors_are_found_and_others_are_not() {
        let found = ["unix:uid:1000", "unix:user:webserver", "unix:path:/usr/bin/web-frontend"];
        let near = |wanted: &str| nearest(wanted, found.into_iter());
        assert_eq!(near("unix:uid:1001"), Some("unix:uid:1000"));
        assert_eq!(near("unix:user:WebServer"), Some("unix:user:webserver"));
        assert_eq!(near("unix:user: webserver"), Some("unix:user:webserver"));
        assert_eq!(near("unix:path:/usr/bin/web-frontent"), Some("unix:path:/usr/bin/web-frontend"));
        assert_eq!(near("unx:uid:1000"), Some("unix:uid:1000"));
        assert_eq!(near("unix:path:/usr/bin/other"), None);
        assert_eq!(near("docker:image:web"), None);
        assert_eq!(near("no colon"), None);
        assert_eq!(nearest("unix:uid:1", ["unix:uid:2"].into_iter()), None);
    }

    /// The textbook's.
    fn distance(a: &[u8], b: &[u8]) -> usize {
        match (a, b) {
            ([], rest) | (rest, []) => rest.len(),
            ([x, a @ ..], [y, b @ ..]) if x == y => distance(a, b),
            ([_, a1 @ ..], [_, b1 @ ..]) => 1 + distance(a1, b1).min(distance(a, b1)).min(distance(a1, b)),
        }
    }

    proptest! {
        #[test]
        fn the_distance_is_levenshteins(a in "[ab]{0,6}", b in "[ab]{0,6}", most in 0usize..4) {
            let true_distance = distance(a.as_bytes(), b.as_bytes());
            prop_assert_eq!(within(&a, &b, most), (true_distance <= most).then_some(true_distance));
        }
    }
}
