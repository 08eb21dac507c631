//! `spire-agent`: the table of commands decides what runs.

use std::process::ExitCode;

mod commands;

fn main() -> ExitCode {
    commands::PROGRAM.main()
}
