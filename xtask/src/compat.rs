//! `docs/compat.md`: each option, RPC and command of SPIRE's, and whether it is served, refused by name or not applicable.
//!
//! `docs/compat.list` holds the names. What becomes of each is found out by `tests/e2e/tests/compat`: without arguments
//! that test runs here (on the binaries in `STEEPLE_BIN_DIR`); `--results FILE` takes what it wrote before. `--check`
//! writes nothing: with `--results` the document must be what it would be, without it must name all of the list.
//!
//! Beside a state stand tests that use the option, command or RPC: found by its name in their text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::conformance::{argument, find_sources, test_bodies};

const LIST: &str = "docs/compat.list";
const DOCUMENT: &str = "docs/compat.md";
const STEPS: &str = "tests/golden/steps.json";
/// What the test is called that finds the states.
const FINDER: &str = "every_option_command_and_rpc_is_served_or_refused_by_name";
/// How many tests are named for a row.
const SHOWN: usize = 2;

pub fn run(check: bool) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in the workspace")?;
    let sections = read_list(&fs::read_to_string(root.join(LIST)).context(LIST)?)?;
    let committed = fs::read_to_string(root.join(DOCUMENT)).unwrap_or_default();
    let states = match argument("--results")? {
        Some(file) => read_results(&fs::read_to_string(&file).with_context(|| file.display().to_string())?),
        None if check => read_document(&committed, &sections),
        None => find(root)?,
    };
    let evidence = Evidence::read(root)?;
    let (text, missing) = write_document(&sections, &states, &evidence);
    ensure!(missing.is_empty(), "no state is known of: {}\nrun `cargo xtask compat`", missing.join(", "));
    if !check {
        fs::write(root.join(DOCUMENT), text).context(DOCUMENT)?;
        println!("{DOCUMENT}: written");
        return Ok(());
    }
    // Which tests show a row changes with every test; what counts is the states.
    let stale = read_document(&committed, &sections) != read_document(&text, &sections);
    ensure!(!stale, "{DOCUMENT} is stale: run `cargo xtask compat` and commit it");
    println!("{DOCUMENT}: current");
    Ok(())
}

/// Runs the test that finds the states.
fn find(root: &Path) -> anyhow::Result<States> {
    let file = root.join("target/compat.txt");
    fs::create_dir_all(root.join("target"))?;
    let ran = Command::new("cargo")
        .current_dir(root)
        .args(["test", "--locked", "-q", "-p", "steeple-e2e", "--test", "compat"])
        .env("STEEPLE_COMPAT_OUT", &file)
        .status()?;
    ensure!(ran.success(), "the test {FINDER} failed");
    Ok(read_results(&fs::read_to_string(&file).with_context(|| file.display().to_string())?))
}

struct Section {
    kind: String,
    title: String,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    reason: Option<String>,
}

/// States by kind and name.
type States = BTreeMap<(String, String), String>;

/// The list's lines: `# comment`, `@name = reason`, `= kind | title`, `name | how | reason`.
fn read_list(text: &str) -> anyhow::Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    let mut reasons = BTreeMap::new();
    for (number, line) in text.lines().map(str::trim_end).enumerate() {
        let at = || format!("{LIST}:{}", number + 1);
        if line.is_empty() || line.starts_with('#') {
        } else if let Some(section) = line.strip_prefix("= ") {
            let (kind, title) = section.split_once(" | ").with_context(at)?;
            sections.push(Section { kind: kind.to_owned(), title: title.to_owned(), rows: Vec::new() });
        } else if line.starts_with('@') {
            let (name, reason) = line.split_once(" = ").with_context(at)?;
            reasons.insert(name.to_owned(), reason.to_owned());
        } else {
            let columns: Vec<&str> = line.split(" |").map(str::trim).collect();
            ensure!(matches!(columns.len(), 2 | 3), "{}: two or three columns wanted", at());
            let reason =
                columns.get(2).map(|text| reasons.get(*text).map_or(*text, String::as_str).to_owned());
            let rows = &mut sections.last_mut().with_context(|| format!("{}: no section yet", at()))?.rows;
            rows.push(Row { name: columns[0].to_owned(), reason });
        }
    }
    Ok(sections)
}

/// Lines of the finder: kind, name, state between tabs.
fn read_results(text: &str) -> States {
    let columns = text.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let known = columns.filter_map(|columns| match columns[..] {
        [kind, name, state] => Some(((kind.to_owned(), name.to_owned()), state.to_owned())),
        _ => None,
    });
    known.collect()
}

/// The states a document of ours holds.
fn read_document(text: &str, sections: &[Section]) -> States {
    let mut states = States::new();
    let mut kind = None;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            kind = sections.iter().find(|section| section.title == title).map(|section| &section.kind);
        } else if let (Some(kind), Some(row)) = (kind, line.strip_prefix("| `"))
            && let Some((name, rest)) = row.split_once("` | ")
            && let Some((state, _)) = rest.split_once(" | ")
        {
            states.insert((kind.clone(), name.to_owned()), state.to_owned());
        }
    }
    states
}

fn write_document(sections: &[Section], states: &States, evidence: &Evidence) -> (String, Vec<String>) {
    let mut text = format!(
        "# What of SPIRE's is served\n\n\
         Made by `cargo xtask compat` of [compat.list](compat.list); not to be edited. The states are what \
         `{FINDER}` (tests/e2e) found on the binaries: each option goes through `validate`, each command and its flags \
         through `-h`, each RPC to a running server or agent. `refused` means by name, with an error that says so. \
         Beside it stand tests that use it; a refusal is shown by that test itself.\n"
    );
    let mut summary =
        String::from("\n| | all | served | refused | not applicable |\n|---|--:|--:|--:|--:|\n");
    let (mut tables, mut missing) = (String::new(), Vec::new());
    for section in sections {
        let _ = write!(tables, "\n## {}\n\n| what | state | shown by |\n|---|---|---|\n", section.title);
        let (mut served, mut refused, mut other) = (0, 0, 0);
        for Row { name, reason } in &section.rows {
            let found = states.get(&(section.kind.clone(), name.clone()));
            let (state, shown) = match (reason, found.map(String::as_str)) {
                (Some(reason), _) => {
                    other += 1;
                    ("not applicable", reason.clone())
                }
                (None, Some("served")) => {
                    served += 1;
                    ("served", evidence.of(&section.kind, name))
                }
                (None, Some("refused")) => {
                    refused += 1;
                    ("refused", format!("`{FINDER}`"))
                }
                (None, _) => {
                    missing.push(format!("{} {name}", section.kind));
                    continue;
                }
            };
            let _ = writeln!(tables, "| `{name}` | {state} | {shown} |");
        }
        let all = section.rows.len();
        let _ = writeln!(summary, "| {} | {all} | {served} | {refused} | {other} |", section.title);
    }
    text.push_str(&summary);
    text.push_str(&tables);
    (text, missing)
}

/// Where names are used.
struct Evidence {
    /// File, name and text of each test.
    tests: Vec<(String, String, String)>,
    /// Command lines that `tests/golden` plays, the program first.
    steps: Vec<Vec<String>>,
}

impl Evidence {
    fn read(root: &Path) -> anyhow::Result<Self> {
        let mut tests = Vec::new();
        for file in find_sources(root)? {
            let relative = file.strip_prefix(root)?.display().to_string();
            if relative.contains("tests/compat/") {
                continue;
            }
            let text = fs::read_to_string(&file).with_context(|| relative.clone())?;
            let bodies = test_bodies(&text);
            tests.extend(bodies.map(|(name, body)| (relative.clone(), name.to_owned(), body.to_owned())));
        }
        let steps: serde_json::Value = serde_json::from_str(&fs::read_to_string(root.join(STEPS))?)?;
        let steps = steps.as_array().context(STEPS)?.iter().map(|step| {
            let argv = step["argv"].as_array().map(Vec::as_slice).unwrap_or_default();
            argv.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
        });
        Ok(Self { tests, steps: steps.collect() })
    }

    fn of(&self, kind: &str, name: &str) -> String {
        let mut shown = Vec::new();
        if let Some(program) = kind.strip_suffix("-command") {
            let words: Vec<&str> = name.split(' ').collect();
            let played = self.steps.iter().filter(|step| {
                let agent = step.first().is_some_and(|first| first.ends_with("agent") || first == "admin");
                agent == (program == "agent") && step.get(1..=words.len()).is_some_and(|verbs| verbs == words)
            });
            match played.count() {
                0 => {}
                1 => shown.push("1 step of tests/golden".to_owned()),
                count => shown.push(format!("{count} steps of tests/golden")),
            }
        }
        let wanted = wanted(kind, name);
        let side = if kind.starts_with("agent") { "agent" } else { "server" };
        let mut found: Vec<&(String, String, String)> =
            self.tests.iter().filter(|(_, _, body)| wanted.iter().any(|word| mentions(body, word))).collect();
        // Tests of this side come first.
        found.sort_by_key(|(file, name, _)| (!file.contains(side), file.clone(), name.clone()));
        found.dedup_by_key(|(_, name, _)| name.clone());
        shown.extend(found.iter().take(SHOWN).map(|(_, name, _)| format!("`{name}`")));
        if shown.is_empty() {
            shown.push(format!("`{FINDER}`"));
        }
        shown.join(", ")
    }
}

/// The forms in which tests write a name.
fn wanted(kind: &str, name: &str) -> Vec<String> {
    if kind.ends_with("-rpc") {
        let method = name.rsplit('/').next().unwrap_or(name);
        return vec![method.to_owned(), snake(method)];
    }
    if kind.ends_with("-command") {
        let words: Vec<String> = name.split(' ').map(|word| format!("\"{word}\"")).collect();
        return vec![words.join(", ")];
    }
    let last = name.rsplit(['.', ' ']).next().unwrap_or(name);
    vec![last.to_owned()]
}

/// `FetchX509SVID` as the generated clients write it: `fetch_x509svid`.
fn snake(method: &str) -> String {
    let chars: Vec<char> = method.chars().collect();
    let mut text = String::new();
    for (i, c) in chars.iter().enumerate() {
        // Digits belong to what stands before them.
        let before = chars[..i].iter().rfind(|c| !c.is_ascii_digit());
        let after_lower = before.is_some_and(|before| before.is_lowercase());
        let ends_capitals = before.is_some_and(|before| before.is_uppercase())
            && chars.get(i + 1).is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && (after_lower || ends_capitals) {
            text.push('_');
        }
        text.extend(c.to_lowercase());
    }
    text
}

/// The word on its own, not as a part of another.
fn mentions(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, found)| !text[..at].ends_with(is_part) && !text[at + found.len()..].starts_with(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "@w = Windows only\n= server-option | Options\nlog_level | x\npipe | x | @w\n";

    fn evidence() -> Evidence {
        let body = "with(\"log_level = 1\")".to_owned();
        Evidence { tests: vec![("bins/spire-server/x.rs".into(), "levels".into(), body)], steps: Vec::new() }
    }

    #[test]
    fn a_document_tells_its_own_states() {
        let sections = read_list(LIST).unwrap();
        let states = read_results("server-option\tlog_level\tserved\n");
        let (text, missing) = write_document(&sections, &states, &evidence());
        assert!(missing.is_empty());
        assert!(text.contains("| `log_level` | served | `levels` |\n"), "{text}");
        assert!(text.contains("| `pipe` | not applicable | Windows only |\n"), "{text}");
        assert!(text.contains("| Options | 2 | 1 | 0 | 1 |\n"), "{text}");
        let read = read_document(&text, &sections);
        assert_eq!(read[&("server-option".to_owned(), "log_level".to_owned())], "served");
        let (_, missing) = write_document(&sections, &States::new(), &evidence());
        assert_eq!(missing, ["server-option log_level"]);
    }

    #[test]
    fn names_as_tests_write_them() {
        assert_eq!(snake("GetX509AuthorityState"), "get_x509_authority_state");
        assert_eq!(snake("FetchX509SVID"), "fetch_x509svid");
        assert_eq!(snake("BatchCreateEntry"), "batch_create_entry");
        assert_eq!(wanted("server-command", "entry show"), ["\"entry\", \"show\""]);
        assert!(mentions("a log_level b", "log_level") && !mentions("xlog_level", "log_level"));
    }
}
