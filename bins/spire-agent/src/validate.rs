//! `spire-agent validate`

use steeple_cli::Io;

use crate::config::{Config, LoadError};

/// The command. Answers the exit code.
pub fn command(args: &[String]) -> u8 {
    let mut io = Io::process();
    match Config::load("validate", args) {
        Ok(_) => {
            let printed = io.print("SPIRE agent configuration file is valid.\n");
            u8::from(printed.is_err())
        }
        Err(e) => {
            // As in SPIRE, a bad flag is printed with the usage first.
            if let LoadError::Flags(flags) = &e {
                io.eprint(&flags.output());
            }
            io.eprint(&format!("SPIRE agent configuration file is invalid: {e}\n"));
            1
        }
    }
}
