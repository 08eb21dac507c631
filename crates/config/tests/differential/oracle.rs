//! Go's library as a process.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

pub struct Answer {
    pub tree: Result<Value, String>,
    pub config: Result<Value, String>,
}

/// One answer for each text.
pub fn ask(texts: &[String]) -> Vec<Answer> {
    let mut child = Command::new(program())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the oracle was built but does not start");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let questions: Vec<String> = texts.iter().map(|t| serde_json::json!({ "text": t }).to_string()).collect();
    let writer = std::thread::spawn(move || {
        for question in questions {
            writeln!(stdin, "{question}").expect("the oracle reads its questions");
        }
    });
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let answers: Vec<Answer> = stdout.lines().map(|line| parse(&line.expect("the oracle's answer"))).collect();
    writer.join().expect("all questions were written");
    assert!(child.wait().expect("the oracle ends").success());
    assert_eq!(answers.len(), texts.len(), "one answer for each question");
    answers
}

fn parse(line: &str) -> Answer {
    let mut answer: Value = serde_json::from_str(line).expect("the oracle answers in JSON");
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
            .args(["build", "-mod=readonly", "-o"])
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
