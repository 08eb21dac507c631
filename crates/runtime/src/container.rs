//! Which container a process is in, by what the kernel says in /proc.
//!
//! The kernel writes /proc/PID/cgroup, so a process cannot put into it what it likes, but whoever may make cgroups (a
//! user in a delegated subtree, a container with a writable cgroup file system) may give one the name of somebody
//! else's container and move into it. What is found here is therefore a claim: a [`Place`] that
//! [`holds`](Place::holds) the container's own first process confirms it. /proc/PID/mountinfo shows the process's own
//! mount namespace, which it arranges itself: it is looked at only where the cgroups name nothing (as SPIRE does) and
//! confirmed by [`Process::shares_mounts`].

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat, readlinkat};

/// Both files are a few kilobytes; a host with thousands of mounts has a few hundred.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// A container ID, by convention of all engines: so many hexadecimal digits.
const ID_DIGITS: usize = 64;
/// Lengths of the parts of a pod's UID.
const POD_UID: [usize; 5] = [8, 4, 4, 4, 12];

/// Where a process says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub container_id: String,
    /// With dashes, however it was written. Looked for only on request.
    pub pod_uid: Option<String>,
    /// The paths that name the container, each up to the name's segment.
    pub anchors: Vec<Anchor>,
}

/// A path that ends with the segment naming a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// `N:controllers` of the cgroup hierarchy; empty for a mount.
    pub hierarchy: String,
    pub path: String,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Container,
    /// A path with a pod's UID beats paths without (SPIRE; kind on a unified hierarchy).
    Pod,
}

/// Why there is no telling. Choosing nothing is the safe way (SPIRE).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    // SPIRE's texts.
    #[error("multiple container IDs found ({0:?}, {1:?})")]
    Containers(String, String),
    #[error("multiple pod UIDs found ({0:?}, {1:?})")]
    Pods(String, String),
    #[error(
        "unable to obtain cgroups: invalid cgroup entry, contains {fields} colon separated fields but expected at least 3: {line:?}"
    )]
    Cgroup { fields: usize, line: String },
    #[error("failed to parse mount info: {what} in mountinfo line: {line}")]
    MountInfo { what: &'static str, line: String },
    #[error("a cgroup path that goes back after it went down is none of the kernel's: {0:?}")]
    Path(String),
}

/// One line of /proc/PID/cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cgroup<'a> {
    /// `N:controllers`; `0:` is the unified hierarchy.
    pub hierarchy: &'a str,
    pub path: &'a str,
}

/// The lines of /proc/PID/cgroup. A name in it cannot hold a line break, anything else it can.
pub fn cgroups(text: &str) -> Result<Vec<Cgroup<'_>>, PlaceError> {
    text.lines().filter(|line| !line.is_empty()).map(cgroup).collect()
}

fn cgroup(line: &str) -> Result<Cgroup<'_>, PlaceError> {
    let mut colons = line.match_indices(':').map(|(at, _)| at);
    let (Some(_), Some(second)) = (colons.next(), colons.next()) else {
        let fields = line.matches(':').count() + 1;
        return Err(PlaceError::Cgroup { fields, line: line.to_owned() });
    };
    let path = &line[second + 1..];
    // `..` leads out of the reader's own cgroup namespace, at the start only.
    let mut down = path.split('/').filter(|part| !part.is_empty()).skip_while(|part| *part == "..");
    if down.any(|part| part == "..") {
        return Err(PlaceError::Path(path.to_owned()));
    }
    Ok(Cgroup { hierarchy: &line[..second], path })
}

/// Roots of the cgroup mounts in /proc/PID/mountinfo, but those that are a whole hierarchy.
pub fn cgroup_mounts(text: &str) -> Result<Vec<&str>, PlaceError> {
    let lines = text.lines().filter(|line| !line.is_empty());
    let roots = lines.map(|line| Ok(mount(line)?.filter(|root| *root != "/")));
    roots.filter_map(Result::transpose).collect()
}

/// Fields stand between single spaces: one may be empty.
fn mount(line: &str) -> Result<Option<&str>, PlaceError> {
    let wrong = |what| PlaceError::MountInfo { what, line: line.to_owned() };
    let fields: Vec<&str> = line.split(' ').collect();
    let separator =
        fields.iter().position(|field| *field == "-").ok_or_else(|| wrong("missing separator"))?;
    if separator < 6 {
        return Err(wrong("expected at least 6 fields before separator"));
    }
    match fields.get(separator + 1) {
        None | Some(&"") => Err(wrong("missing filesystem type")),
        Some(&("cgroup" | "cgroup2")) => Ok(Some(fields[3])),
        Some(_) => Ok(None),
    }
}

impl Place {
    /// What /proc/PID/cgroup says. `None`: no container.
    pub fn from_cgroup(text: &str, want: Want) -> Result<Option<Self>, PlaceError> {
        let lines = cgroups(text)?;
        one(lines.iter().filter_map(|line| Named::find(line.hierarchy, line.path, want)))
    }

    /// What /proc/PID/mountinfo says.
    pub fn from_mountinfo(text: &str, want: Want) -> Result<Option<Self>, PlaceError> {
        let roots = cgroup_mounts(text)?;
        one(roots.iter().filter_map(|root| Named::find("", root, want)))
    }

    /// Whether the process with this /proc/PID/cgroup is in the same place: its paths lead through those that name
    /// the container here.
    pub fn holds(&self, cgroup: &str) -> bool {
        let Ok(lines) = cgroups(cgroup) else { return false };
        let within = |anchor: &Anchor| {
            let line = lines.iter().find(|line| line.hierarchy == anchor.hierarchy);
            let rest = line.and_then(|line| line.path.strip_prefix(anchor.path.as_str()));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        !self.anchors.is_empty() && self.anchors.iter().all(within)
    }
}

/// A path that names a container.
struct Named<'a> {
    id: &'a str,
    pod_uid: Option<String>,
    hierarchy: &'a str,
    path: &'a str,
}

impl<'a> Named<'a> {
    /// The innermost segment with an ID counts; a pod's UID stands before it.
    fn find(hierarchy: &'a str, path: &'a str, want: Want) -> Option<Self> {
        let mut end = path.len();
        loop {
            let start = path[..end].rfind('/').map_or(0, |at| at + 1);
            if let Some(at) = container_id(&path[start..end]) {
                let at = start + at;
                let pod_uid = (want == Want::Pod).then(|| path[..at].rsplit('/').find_map(pod_uid)).flatten();
                return Some(Self { id: &path[at..at + ID_DIGITS], pod_uid, hierarchy, path: &path[..end] });
            }
            end = start.checked_sub(1)?;
        }
    }
}

/// All paths must name the same container. Those that name none (a controller that the engine does not use) do not
/// count, where SPIRE takes some of them for a conflict.
fn one<'a>(found: impl Iterator<Item = Named<'a>>) -> Result<Option<Place>, PlaceError> {
    let mut found: Vec<Named<'_>> = found.collect();
    if found.iter().any(|named| named.pod_uid.is_some()) {
        found.retain(|named| named.pod_uid.is_some());
    }
    let Some(first) = found.first() else { return Ok(None) };
    for other in &found {
        if let (Some(a), Some(b)) = (&first.pod_uid, &other.pod_uid)
            && a != b
        {
            return Err(PlaceError::Pods(a.clone(), b.clone()));
        }
        if other.id != first.id {
            return Err(PlaceError::Containers(first.id.to_owned(), other.id.to_owned()));
        }
    }
    let anchor =
        |named: &Named<'_>| Anchor { hierarchy: named.hierarchy.to_owned(), path: named.path.to_owned() };
    Ok(Some(Place {
        container_id: first.id.to_owned(),
        pod_uid: first.pod_uid.clone(),
        anchors: found.iter().map(anchor).collect(),
    }))
}

/// Where a whole word of 64 hexadecimal digits starts.
fn container_id(segment: &str) -> Option<usize> {
    words(segment)
        .find(|(_, word)| word.len() == ID_DIGITS && word.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(|(at, _)| at)
}

/// `pod<UID>` as whole words; the systemd driver writes underscores for the dashes.
fn pod_uid(segment: &str) -> Option<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = segment.as_bytes();
    let length = POD_UID.iter().sum::<usize>() + POD_UID.len() - 1;
    for (at, _) in segment.match_indices("pod") {
        let (from, to) = (at + 3, at + 3 + length);
        let Some(uid) = bytes.get(from..to) else { continue };
        let alone = (at == 0 || !word(bytes[at - 1])) && bytes.get(to).is_none_or(|b| !word(*b));
        let mut parts = uid.split(|b| matches!(b, b'-' | b'_'));
        let shaped = POD_UID.iter().all(|digits| {
            parts.next().is_some_and(|part| part.len() == *digits && part.iter().all(u8::is_ascii_hexdigit))
        });
        if alone && shaped && parts.next().is_none() {
            return Some(segment[from..to].replace('_', "-"));
        }
    }
    None
}

/// Runs of letters, digits and underscores, and where each starts.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + bytes.get(from..)?.iter().position(|b| word(*b))?;
        let length = bytes[start..].iter().position(|b| !word(*b)).unwrap_or(bytes.len() - start);
        from = start + length;
        Some((start, &text[start..from]))
    })
}

/// An open /proc/PID: once that process ends, reads through it fail, so a reused number cannot answer for it.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// The process that has this number now: whoever asks makes sure afterwards that it is the one meant.
    pub fn open(pid: i32) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())?))
    }

    pub fn cgroup(&self) -> io::Result<String> {
        self.read("cgroup")
    }

    pub fn mountinfo(&self) -> io::Result<String> {
        self.read("mountinfo")
    }

    /// Whether both are in one mount namespace, which nobody enters without power over it.
    pub fn shares_mounts(&self, other: &Self) -> io::Result<bool> {
        let namespace = |process: &Self| readlinkat(&process.0, "ns/mnt", Vec::new());
        Ok(namespace(self)? == namespace(other)?)
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let file = File::from(openat(&self.0, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        let mut bytes = Vec::new();
        if file.take(MAX_FILE).read_to_end(&mut bytes)? as u64 == MAX_FILE {
            let what = format!("/proc/PID/{name} has more than {MAX_FILE} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        // Names of cgroups may be any bytes; those that are not UTF-8 name no container.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests;
