//! Go's library as a process.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

pub struct Answer {
    pub tree: Result<Value, String>,
    pub config: Result<Value, String>,
}

/// What Go's HCL library makes of each text.
pub fn ask(texts: &[String]) -> Vec<Answer> {
    converse(texts.iter().map(|t| json!({ "text": t })).collect()).into_iter().map(parse).collect()
}

/// What Go's standard library answers: `kind` is one of `std.go`'s.
pub fn ask_std(kind: &str, texts: &[String]) -> Vec<Result<String, String>> {
    std_answers(texts.iter().map(|t| json!({ "ask": kind, "text": t })).collect())
}

/// What Go's `flag` package makes of each command line.
pub fn ask_flags(lines: &[Vec<String>]) -> Vec<Result<String, String>> {
    std_answers(lines.iter().map(|args| json!({ "ask": "flags", "args": args })).collect())
}

fn std_answers(questions: Vec<Value>) -> Vec<Result<String, String>> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let answer = |a: Value| if a["error"] == "" { Ok(text(&a["result"])) } else { Err(text(&a["error"])) };
    converse(questions).into_iter().map(answer).collect()
}

/// One answer for each question.
fn converse(questions: Vec<Value>) -> Vec<Value> {
    let mut child = Command::new(program())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the oracle was built but does not start");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let asked = questions.len();
    let writer = std::thread::spawn(move || {
        for question in questions {
            writeln!(stdin, "{question}").expect("the oracle reads its questions");
        }
    });
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let answer = |line: std::io::Result<String>| {
        serde_json::from_str(&line.expect("the oracle's answer")).expect("the oracle answers in JSON")
    };
    let answers: Vec<Value> = stdout.lines().map(answer).collect();
    writer.join().expect("all questions were written");
    assert!(child.wait().expect("the oracle ends").success());
    assert_eq!(answers.len(), asked, "one answer for each question");
    answers
}

fn parse(mut answer: Value) -> Answer {
    let mut part = |value: &str, error: &str| match answer[error].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer[value].take()),
    };
    Answer { tree: part("tree", "tree_error"), config: part("config", "config_error") }
}

/// Built once for each run of the tests; Go's own cache makes that quick.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hcl-oracle");
        let status = Command::new("go")
            .args(["build", "-buildvcs=false", "-mod=readonly", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(&source)
            .env("GOWORK", "off")
            .status()
            .unwrap_or_else(|e| {
                panic!("cannot run `go build`: {e}. These tests compare with Go's HCL library: install Go")
            });
        assert!(status.success(), "`go build` failed in {}", source.display());
        program
    })
}
