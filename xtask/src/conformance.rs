//! `docs/conformance.md`: which SPIFFE requirement is shown by which test, and how the test went.
//!
//! `docs/conformance.list` holds the requirements. A test shows the requirement whose id its name starts with
//! (`x5_26_…` shows X5-26). A requirement must have a test or a written reason why there is none.
//!
//! `--results FILE` takes the outcome of each test from what `cargo test` printed; without it the outcomes of
//! the committed document stand. `--check` writes nothing and fails on any difference, gap or failed test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

const LIST: &str = "docs/conformance.list";
const DOCUMENT: &str = "docs/conformance.md";
/// Where tests are looked for.
const SOURCES: [&str; 4] = ["bins", "crates", "plugins", "tests"];

pub fn run(check: bool) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in the workspace")?;
    let list = fs::read_to_string(root.join(LIST)).context(LIST)?;
    let sections = read_list(&list)?;
    let known: BTreeSet<&str> =
        sections.iter().flat_map(|section| &section.requirements).map(|r| r.id.as_str()).collect();
    let tests = find_tests(root, &known)?;
    let committed = fs::read_to_string(root.join(DOCUMENT)).unwrap_or_default();
    let results = match argument("--results")? {
        Some(file) => read_results(&fs::read_to_string(&file).with_context(|| file.display().to_string())?),
        None => read_document(&committed),
    };
    let report = write_document(&sections, &tests, &results);
    if !check {
        fs::write(root.join(DOCUMENT), &report.text).context(DOCUMENT)?;
    }
    let mut faults = report.faults;
    if check && report.text != committed {
        faults.push(format!("{DOCUMENT} is stale: run `cargo xtask conformance` and commit it"));
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// The value of a command-line argument that names a file.
pub(crate) fn argument(name: &str) -> anyhow::Result<Option<PathBuf>> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    match (args.next(), args.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(file)) => Ok(Some(file.into())),
        (Some(_), None) => bail!("{name} needs a file"),
    }
}

struct Section {
    name: String,
    requirements: Vec<Requirement>,
}

struct Requirement {
    id: String,
    level: String,
    party: String,
    place: String,
    title: String,
    reason: Option<String>,
}

/// The list's lines: `# comment`, `@name = reason`, `= section`, and requirements in columns.
fn read_list(text: &str) -> anyhow::Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    let mut reasons = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let at = || format!("{LIST}:{}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("= ") {
            sections.push(Section { name: name.to_owned(), requirements: Vec::new() });
            continue;
        }
        if line.starts_with('@') {
            let (name, reason) = line.split_once(" = ").with_context(at)?;
            reasons.insert(name, reason);
            continue;
        }
        let columns: Vec<&str> = line.split(" | ").collect();
        ensure!(columns.len() == 6 || columns.len() == 7, "{}: six or seven columns wanted", at());
        ensure!(seen.insert(columns[0]), "{}: {} is there twice", at(), columns[0]);
        let reason = match columns.get(6) {
            Some(name) if name.starts_with('@') => {
                Some(*reasons.get(name).with_context(|| format!("{}: {name} is not defined", at()))?)
            }
            other => other.copied(),
        };
        sections.last_mut().with_context(|| format!("{}: no section yet", at()))?.requirements.push(
            Requirement {
                id: columns[0].to_owned(),
                level: level(columns[1]).with_context(|| format!("{}: unknown level", at()))?.to_owned(),
                party: columns[2].to_owned(),
                place: columns[4].to_owned(),
                title: columns[5].to_owned(),
                reason: reason.map(str::to_owned),
            },
        );
    }
    Ok(sections)
}

fn level(code: &str) -> Option<&'static str> {
    Some(match code {
        "M" => "must",
        "MN" => "must not",
        "S" => "should",
        "SN" => "should not",
        "Y" => "may",
        "R" => "recommended",
        _ => return None,
    })
}

/// Tests by requirement id: (file, name).
type Tests = BTreeMap<String, BTreeSet<(String, String)>>;

/// Every file that may hold tests.
pub(crate) fn find_sources(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in SOURCES {
        collect_sources(&root.join(folder), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn find_tests(root: &Path, known: &BTreeSet<&str>) -> anyhow::Result<Tests> {
    let mut tests = Tests::new();
    for file in find_sources(root)? {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let relative = file.strip_prefix(root)?.display().to_string();
        for name in test_names(&text) {
            let Some(id) = id_of(name) else { continue };
            ensure!(known.contains(id.as_str()), "{relative}: {name} names {id}, which is not in {LIST}");
            tests.entry(id).or_default().insert((relative.clone(), name.to_owned()));
        }
    }
    Ok(tests)
}

fn collect_sources(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target" && name != "node_modules") {
                collect_sources(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The functions under a `#[test]` or `#[tokio::test]` attribute.
fn test_names(text: &str) -> impl Iterator<Item = &str> {
    let mut under_test = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            under_test = true;
            return None;
        }
        if line.starts_with("#[") || line.starts_with("//") || !under_test {
            return None;
        }
        under_test = false;
        let signature = line.trim_start_matches("pub ").trim_start_matches("async ").strip_prefix("fn ")?;
        signature.split(['(', '<']).next()
    })
}

/// Each test's name, and its text up to the next one.
pub(crate) fn test_bodies(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let starts: Vec<usize> = ["#[test]", "#[tokio::test"]
        .iter()
        .flat_map(|attribute| text.match_indices(attribute).map(|(at, _)| at))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let ends = starts.iter().copied().skip(1).chain([text.len()]).collect::<Vec<_>>();
    starts.into_iter().zip(ends).filter_map(|(start, end)| {
        let body = &text[start..end];
        Some((test_names(body).next()?, body))
    })
}

/// `x5_26_leaf_…` → `X5-26`.
fn id_of(test: &str) -> Option<String> {
    let (prefix, rest) = test.split_once('_')?;
    let number = rest.split('_').next()?;
    let is_number = number.len() == 2 && number.bytes().all(|c| c.is_ascii_digit());
    let is_prefix = ["id", "x5", "j", "b", "bm", "we", "wa", "f"].contains(&prefix);
    (is_prefix && is_number).then(|| format!("{}-{number}", prefix.to_uppercase()))
}

/// Outcomes by test name: `ok`, `FAILED`, `ignored`. The worst of several counts.
type Results = BTreeMap<String, String>;

/// Lines of libtest: `test jwt::j_05_… ... ok`.
fn read_results(text: &str) -> Results {
    let mut results = Results::new();
    for line in text.lines() {
        let Some((path, outcome)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... "))
        else {
            continue;
        };
        let path = path.trim_end_matches(" - should panic");
        let name = path.rsplit("::").next().unwrap_or(path);
        let outcome = outcome.split([',', ' ']).next().unwrap_or(outcome);
        let worst = results.entry(name.to_owned()).or_insert_with(|| outcome.to_owned());
        if outcome != "ok" {
            outcome.clone_into(worst);
        }
    }
    results
}

/// The outcomes a document of ours holds: `` `test` ok ``.
fn read_document(text: &str) -> Results {
    let mut results = Results::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let Some(tests) = line.split(" | ").nth(5) else { continue };
        for test in tests.trim_end_matches(" |").split("<br>") {
            if let Some((name, outcome)) = test.strip_prefix('`').and_then(|test| test.split_once("` ")) {
                results.insert(name.to_owned(), outcome.to_owned());
            }
        }
    }
    results
}

struct Report {
    text: String,
    faults: Vec<String>,
}

fn write_document(sections: &[Section], tests: &Tests, results: &Results) -> Report {
    let mut text = String::from(
        "# Conformance with the SPIFFE standards\n\n\
         Made by `cargo xtask conformance` of [conformance.list](conformance.list) and of the tests whose names \
         start with an id; not to be edited. A requirement without a test has the reason in its place. \
         What WIT-SVID (Incubating) itself asks of tokens is tested in crates/spiffe/src/jwt/wit, and not listed.\n",
    );
    let mut faults = Vec::new();
    let mut summary = String::from(
        "\n| Standard | requirements | with tests | with a reason | missing |\n|---|--:|--:|--:|--:|\n",
    );
    let mut tables = String::new();
    for section in sections {
        let _ = write!(
            tables,
            "\n## {}\n\n| id | level | party | section | requirement | test and result |\n|---|---|---|---|---|---|\n",
            section.name
        );
        let (mut tested, mut missing) = (0, 0);
        for requirement in &section.requirements {
            let shown = match tests.get(&requirement.id) {
                Some(found) => {
                    tested += 1;
                    show_tests(&requirement.id, found, results, &mut faults)
                }
                None => requirement.reason.clone().unwrap_or_else(|| {
                    missing += 1;
                    faults.push(format!("{} has neither a test nor a reason in {LIST}", requirement.id));
                    "**missing**".to_owned()
                }),
            };
            let Requirement { id, level, party, place, title, .. } = requirement;
            let _ = writeln!(tables, "| {id} | {level} | {party} | {place} | {title} | {shown} |");
        }
        let all = section.requirements.len();
        let reasoned = all - tested - missing;
        let _ = writeln!(summary, "| {} | {all} | {tested} | {reasoned} | {missing} |", section.name);
    }
    text.push_str(&summary);
    text.push_str(&tables);
    Report { text, faults }
}

fn show_tests(
    id: &str,
    found: &BTreeSet<(String, String)>,
    results: &Results,
    faults: &mut Vec<String>,
) -> String {
    let shown = found.iter().map(|(file, name)| {
        let outcome = results.get(name).map_or("not run", String::as_str);
        if outcome != "ok" {
            faults.push(format!("{id}: {name} in {file}: {outcome}"));
        }
        format!("`{name}` {outcome}")
    });
    shown.collect::<Vec<_>>().join("<br>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_off_test_names() {
        assert_eq!(id_of("x5_26_leaf_with_the_ca_flag"), Some("X5-26".into()));
        assert_eq!(id_of("bm_04_duplicates"), Some("BM-04".into()));
        for other in ["x5", "id_parse", "j_5_x", "zz_01_x", "b_100_x"] {
            assert_eq!(id_of(other), None, "{other}");
        }
    }

    #[test]
    fn only_functions_under_a_test_attribute_count() {
        let text = "#[test]\nfn a() {}\nfn b() {}\n#[tokio::test(flavor = \"x\")]\n#[ignore = \"y\"]\nasync fn c() {}\n";
        assert_eq!(test_names(text).collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn the_worst_of_several_outcomes_counts() {
        let text = "running 3 tests\ntest a::x ... ok\ntest b::x ... FAILED\ntest c::x ... ok\ntest y ... ignored, why\n";
        let results = read_results(text);
        assert_eq!((results["x"].as_str(), results["y"].as_str()), ("FAILED", "ignored"));
    }

    #[test]
    fn a_document_tells_its_own_results() {
        let list =
            "@r = because\n= One\nID-01 | M | any | lib | §1 | x | @r\nID-02 | Y | any | lib | §1 | y\n";
        let sections = read_list(list).unwrap();
        let tests =
            Tests::from([("ID-02".to_owned(), BTreeSet::from([("f".to_owned(), "id_02_y".to_owned())]))]);
        let results = Results::from([("id_02_y".to_owned(), "ok".to_owned())]);
        let report = write_document(&sections, &tests, &results);
        assert!(report.faults.is_empty() && report.text.contains("| because |"));
        assert_eq!(read_document(&report.text), results);
        let stale = write_document(&sections, &tests, &Results::new());
        assert_eq!(stale.faults, ["ID-02: id_02_y in f: not run"]);
    }
}
