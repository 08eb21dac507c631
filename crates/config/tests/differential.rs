//! HCL 1 as Go's own library reads it, case by case.
//!
//! `oracle/` is a small Go program around `github.com/hashicorp/hcl` v1 (the version SPIRE uses). Every input goes
//! through both; trees must be equal to the column, decoded configurations to the value, and what one refuses the
//! other must refuse. Where we differ on purpose, `expectation.rs` says so.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a test"
)]

#[path = "differential/corpus.rs"]
mod corpus;
#[path = "differential/expectation.rs"]
mod expectation;
#[path = "differential/generate.rs"]
mod generate;
#[path = "differential/oracle.rs"]
mod oracle;
#[path = "differential/shape.rs"]
mod shape;
#[path = "differential/std.rs"]
mod std_library;
#[path = "differential/view.rs"]
mod view;

use expectation::Case;
use generate::Generator;

/// The same cases in every run; `STEEPLE_SEED=n` gives others.
fn seed(of: u64) -> u64 {
    let base = std::env::var("STEEPLE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5EED_0000u64);
    base.wrapping_mul(16).wrapping_add(of)
}

#[test]
fn hand_written_cases() {
    let cases = corpus::cases();
    assert!(cases.len() >= 300, "{} hand-written cases", cases.len());
    check(cases);
}

/// The same text with other line ends.
#[test]
fn hand_written_cases_with_crlf() {
    let with_crlf = |case: Case| Case { text: case.text.replace('\n', "\r\n"), ..case };
    check(corpus::cases().into_iter().map(with_crlf).collect());
}

#[test]
fn hand_written_cases_without_a_line_end() {
    let cut = |case: Case| Case { text: case.text.trim_end_matches('\n').to_owned(), ..case };
    check(corpus::cases().into_iter().map(cut).collect());
}

#[test]
fn generated_hcl() {
    let mut generator = Generator::new(seed(0));
    check((0..2500).map(|i| Case::new(format!("HCL {i}"), generator.hcl())).collect());
}

#[test]
fn generated_json() {
    let mut generator = Generator::new(seed(1));
    check((0..1000).map(|i| Case::new(format!("JSON {i}"), generator.json())).collect());
}

#[test]
fn generated_configurations() {
    let mut generator = Generator::new(seed(2));
    check((0..2000).map(|i| Case::new(format!("configuration {i}"), generator.configuration())).collect());
}

/// Texts that are almost right.
#[test]
fn mutated_hcl() {
    let mut generator = Generator::new(seed(3));
    let mut sources: Vec<String> =
        corpus::cases().into_iter().map(|c| c.text).filter(|t| !is_json(t)).collect();
    sources.extend((0..500).map(|_| generator.hcl()));
    let mut cases = Vec::new();
    for i in 0..3000 {
        let text = generator.mutate(&sources[i % sources.len()]);
        // What starts with a brace is JSON, where we are stricter: `json::tests` has those.
        if !is_json(&text) {
            cases.push(Case::new(format!("mutation {i}"), text));
        }
    }
    check(cases);
}

/// What `Body::to_hcl` prints reads, in Go, as what was printed.
#[test]
fn printed_text_reads_the_same_in_go() {
    let mut generator = Generator::new(seed(4));
    let mut texts: Vec<String> = corpus::cases().into_iter().map(|c| c.text).collect();
    texts.extend((0..500).map(|_| generator.hcl()));
    texts.extend((0..300).map(|_| generator.json()));
    let bodies: Vec<_> = texts.iter().filter_map(|text| steeple_config::parse("x", text).ok()).collect();
    assert!(bodies.len() > 900, "{} texts parse", bodies.len());
    let printed: Vec<String> = bodies.iter().map(steeple_config::Body::to_hcl).collect();
    for ((body, text), answer) in bodies.iter().zip(&printed).zip(oracle::ask(&printed)) {
        let tree = answer.tree.unwrap_or_else(|e| panic!("Go does not read what we print: {e}\n{text}"));
        assert_eq!(view::as_printed(&tree), view::as_printed(&view::tree(body)), "printed:\n{text}");
    }
}

/// Other people's files, by hand: `STEEPLE_HCL_CORPUS=/dir cargo test -p steeple-config --test differential -- --ignored`.
#[test]
#[ignore = "reads the directory named by STEEPLE_HCL_CORPUS"]
fn files_of_a_directory() {
    let dir = std::env::var("STEEPLE_HCL_CORPUS").expect("STEEPLE_HCL_CORPUS names a directory");
    let cases = corpus::files(dir.as_ref());
    println!("{} files", cases.len());
    check(cases);
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

fn check(cases: Vec<Case>) {
    let texts: Vec<String> = cases.iter().map(|c| c.text.clone()).collect();
    let answers = oracle::ask(&texts);
    let (mut failures, mut read) = (Vec::new(), 0);
    for (case, answer) in cases.iter().zip(answers) {
        read += usize::from(answer.tree.is_ok());
        if let Err(difference) = expectation::compare(case, &answer) {
            failures.push(format!("--- {}\n{}\n--- {difference}\n", case.name, case.text));
        }
    }
    println!("{} cases, {read} of them well-formed", cases.len());
    let shown = failures.iter().take(10).cloned().collect::<String>();
    assert!(failures.is_empty(), "{} of {} cases differ from Go:\n{shown}", failures.len(), cases.len());
}
