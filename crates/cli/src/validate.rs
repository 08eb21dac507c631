//! `validate`: whether a configuration file is good.

use crate::settings::LoadError;
use crate::{Daemon, Io};

/// The command, told what reading the configuration came to: the warnings a start would log, or why there would be none.
/// Answers the exit code.
pub fn command(daemon: &Daemon, config: Result<Vec<String>, LoadError>) -> u8 {
    let mut io = Io::process();
    let what = format!("SPIRE {} configuration file", daemon.name);
    match config {
        Ok(warnings) => {
            for warning in warnings {
                io.eprint(&format!("Warning: {warning}\n"));
            }
            u8::from(io.print(&format!("{what} is valid.\n")).is_err())
        }
        Err(e) => {
            // As in SPIRE, a bad flag is printed with the usage first.
            if let LoadError::Flags(flags) = &e {
                io.eprint(&flags.output());
            }
            io.eprint(&format!("{what} is invalid: {e}\n"));
            1
        }
    }
}
