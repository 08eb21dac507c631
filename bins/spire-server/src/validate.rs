//! `spire-server validate`

use crate::config::Config;
use crate::run::DAEMON;

/// The command. Answers the exit code.
pub fn command(args: &[String]) -> u8 {
    steeple_cli::validate::command(&DAEMON, Config::load("validate", args).map(|config| config.warnings))
}
