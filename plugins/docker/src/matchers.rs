//! SPIRE's legacy way to find a container's ID: patterns of cgroup paths, `*` for any segment, `<id>` for the ID.

use steeple_runtime::container::{Anchor, Place, PlaceError, cgroups};

const ANY: &str = "*";
const ID: &str = "<id>";

/// Patterns of which at most one fits a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matchers(Vec<Vec<String>>);

/// Why patterns are refused, in SPIRE's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    #[error("pattern {0:?} must contain the container id token \"<id>\" exactly once")]
    Id(String),
    #[error("dockerfinder: patterns must not be ambiguous: {0:?}")]
    Ambiguous(Vec<String>),
}

/// Why the cgroups do not tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("a pattern matched, but no container id was found")]
    Empty,
    #[error("a pattern matched {0:?}, which is no container's ID or name")]
    Name(String),
}

impl Matchers {
    pub fn new(patterns: &[String]) -> Result<Self, MatcherError> {
        let split = |pattern: &String| pattern.split('/').map(str::to_owned).collect::<Vec<_>>();
        let parsed: Vec<Vec<String>> = patterns.iter().map(split).collect();
        let ambiguous = |at: usize| {
            let others = parsed.iter().enumerate().filter(|(other, _)| *other != at);
            others.clone().any(|(_, other)| same_paths(&parsed[at], other))
        };
        let found: Vec<String> =
            (0..parsed.len()).filter(|at| ambiguous(*at)).map(|at| patterns[at].clone()).collect();
        if !found.is_empty() {
            return Err(MatcherError::Ambiguous(found));
        }
        for (pattern, segments) in patterns.iter().zip(&parsed) {
            if segments.iter().filter(|segment| *segment == ID).count() != 1 {
                return Err(MatcherError::Id(pattern.clone()));
            }
        }
        Ok(Self(parsed))
    }

    /// The container that the lines of /proc/PID/cgroup name. All must name the same.
    pub fn find(&self, cgroup: &str) -> Result<Option<Place>, MatchError> {
        let mut found: Option<Place> = None;
        for line in cgroups(cgroup)? {
            let Some((id, path)) = self.0.iter().find_map(|pattern| fit(pattern, line.path)) else {
                continue;
            };
            if id.is_empty() {
                return Err(MatchError::Empty);
            }
            if !is_name(id) {
                return Err(MatchError::Name(id.to_owned()));
            }
            let anchor = Anchor { hierarchy: line.hierarchy.to_owned(), path: path.to_owned() };
            match &mut found {
                None => {
                    found = Some(Place { container_id: id.to_owned(), pod_uid: None, anchors: vec![anchor] });
                }
                Some(place) if place.container_id == id => place.anchors.push(anchor),
                Some(place) => {
                    let known = place.container_id.clone();
                    return Err(PlaceError::Containers(known, id.to_owned()).into());
                }
            }
        }
        Ok(found)
    }
}

/// The ID, and the path up to it.
fn fit<'a>(pattern: &[String], path: &'a str) -> Option<(&'a str, &'a str)> {
    if path.split('/').count() != pattern.len() {
        return None;
    }
    let mut found = None;
    let mut end = 0;
    for (at, (want, segment)) in pattern.iter().zip(path.split('/')).enumerate() {
        end += segment.len() + usize::from(at > 0);
        match want.as_str() {
            ANY => {}
            ID => found = Some((segment, &path[..end])),
            literal if literal == segment => {}
            _ => return None,
        }
    }
    found
}

/// What engines take for a container in a URL. Nothing in it can lead elsewhere.
fn is_name(text: &str) -> bool {
    text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Whether some path fits both.
fn same_paths(a: &[String], b: &[String]) -> bool {
    let free = |segment: &String| segment == ANY || segment == ID;
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || free(a) || free(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matchers(patterns: &[&str]) -> Result<Matchers, MatcherError> {
        Matchers::new(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn patterns_take_whole_segments() {
        let found = matchers(&["/docker/<id>", "/my.slice/*/<id>/*"]).unwrap();
        let id = |path: &str| {
            found.find(&format!("3:pids:{path}\n0::/\n")).unwrap().map(|place| {
                assert_eq!(place.anchors.len(), 1);
                assert!(place.anchors[0].path.ends_with(&place.container_id));
                place.container_id
            })
        };
        assert_eq!(id("/docker/web-1"), Some("web-1".into()));
        assert_eq!(id("/my.slice/x/abc/y"), Some("abc".into()));
        assert_eq!(id("/docker/web-1/x"), None);
        assert_eq!(id("/my.slice/abc/y"), None);
        assert_eq!(id("/myxslice/x/abc/y"), None, "a dot is a dot");
    }

    #[test]
    fn cgroups_that_do_not_agree_or_name_nothing_are_refused() {
        let found = matchers(&["/docker/<id>"]).unwrap();
        let refused = |cgroup: &str| found.find(cgroup).unwrap_err().to_string();
        assert_eq!(
            refused("1:pids:/docker/a\n2:cpu:/docker/b"),
            "multiple container IDs found (\"a\", \"b\")"
        );
        assert_eq!(refused("1:pids:/docker/"), "a pattern matched, but no container id was found");
        assert!(
            refused("1:pids:/docker/a?x=y").contains("no container's ID"),
            "nothing that changes the request"
        );
        assert!(refused("hello").contains("invalid cgroup entry"));
    }

    #[test]
    fn ambiguous_patterns_are_refused() {
        let both = |a, b| matchers(&[a, b]).unwrap_err().to_string();
        assert!(both("/a/b/<id>", "/*/b/<id>").contains("[\"/a/b/<id>\", \"/*/b/<id>\"]"));
        assert!(both("/a/<id>", "/a/<id>").contains("ambiguous"));
        assert!(both("/<id>/a", "/b/<id>").contains("ambiguous"));
        assert!(matchers(&["/a/<id>", "/b/<id>", "/a/<id>/c"]).is_ok());
        assert!(matchers(&["/<id>/<id>"]).unwrap_err().to_string().contains("exactly once"));
    }
}
