use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;

const PROGRAM: Program = Program {
    name: "spire-test",
    version: "1.2.3",
    commands: &[
        Command { name: "run", about: "Runs", run: Run::With(|_| 10) },
        Command { name: "api fetch", about: "Fetches", run: Run::With(|args| 20 + args.len() as u8) },
        Command {
            name: "api fetch jwt",
            about: "Fetches a JWT-SVID",
            run: Run::With(|args| 30 + args.len() as u8),
        },
        Command { name: "draft on", about: "Is there", run: Run::Behind(|| true, |_| 40) },
        Command { name: "hidden off", about: "Is not", run: Run::Behind(|| false, |_| 50) },
    ],
};

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Exit code and stderr; stdout stays empty.
fn run(args: &[&str]) -> (u8, String) {
    let (out, err) = (Buffer::default(), Buffer::default());
    let mut io = Io::new(std::io::empty(), out.clone(), err.clone());
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let code = PROGRAM.run(&args, &mut io);
    assert!(out.0.lock().unwrap().is_empty());
    let err = String::from_utf8(err.0.lock().unwrap().clone()).unwrap();
    (code, err)
}

#[test]
fn the_longest_name_wins_and_the_rest_are_its_arguments() {
    assert_eq!(run(&["run"]).0, 10);
    assert_eq!(run(&["api", "fetch"]).0, 20);
    assert_eq!(run(&["api", "fetch", "-x", "y"]).0, 22);
    assert_eq!(run(&["api", "fetch", "jwt", "-x"]).0, 31);
    assert_eq!(run(&["api", "fetch", "nonsense"]).0, 21);
}

#[test]
fn no_or_an_unknown_command_shows_the_list() {
    for args in [&[][..], &["nonsense"], &["nonsense", "-x"], &["-x"], &["has space"]] {
        let (code, err) = run(args);
        assert_eq!(code, 127, "{args:?}");
        assert!(err.contains("api fetch jwt    Fetches a JWT-SVID"), "{err}");
        assert!(err.contains("draft on") && !err.contains("hidden"), "{err}");
    }
}

#[test]
fn a_group_shows_its_commands() {
    for args in [&["api"][..], &["api", "nope"]] {
        let (code, err) = run(args);
        assert_eq!(code, 1);
        assert!(err.contains("api fetch") && !err.contains("    run"), "{err}");
    }
    assert_eq!(run(&["api", "-h"]).0, 0);
}

#[test]
fn help_and_version() {
    assert_eq!(run(&["--help"]).0, 0);
    assert_eq!(run(&["run", "-x", "--help"]).0, 0);
    assert_eq!(run(&["run", "--", "--help"]).0, 10);
    assert_eq!(run(&["--version"]), (0, "1.2.3\n".into()));
    assert_eq!(run(&["-v"]), (0, "1.2.3\n".into()));
    assert_eq!(run(&["run", "--version"]).0, 10);
}

#[test]
fn a_command_behind_a_flag_is_there_or_is_not() {
    assert_eq!(run(&["draft", "on"]).0, 40);
    assert_eq!(run(&["draft"]).0, 1);
    assert_eq!((run(&["hidden", "off"]).0, run(&["hidden"]).0), (127, 127));
}

#[test]
fn flags_before_the_command_are_refused() {
    let (code, err) = run(&["-x", "run"]);
    assert_eq!((code, err.as_str()), (1, "Error: -x stands before the command; flags go behind \"run\"\n"));
}
