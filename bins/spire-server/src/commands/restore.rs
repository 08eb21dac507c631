//! `restore`: a database's state from a file of `backup`. Ours; SPIRE has no such command.

use std::fs::File;
use std::io::{BufRead, BufReader};

use steeple_cli::{Failure, Io, go};
use steeple_config::FlagSet;
use steeple_datastore_sql::restore;

use super::backup::{ConfigFlags, describe, finish, keys};
use super::progress::RowProgress;

/// The command. Answers the exit code.
pub fn command(args: &[String]) -> u8 {
    let mut io = Io::process();
    let mut flags = FlagSet::new("restore");
    let config = ConfigFlags::new(&mut flags);
    let input = flags.string("input", "", "File that 'backup' wrote; '-' is stdin");
    let force = flags.bool("force", false, "Replace what the database holds");
    if let Err(error) = flags.parse(args) {
        io.eprint(&error.output());
        return 1;
    }
    finish(&mut io, |io| run(io, &config, &input.get(), force.get()))
}

fn run(io: &mut Io, flags: &ConfigFlags, input: &str, force: bool) -> Result<(), Failure> {
    if input.is_empty() {
        return Err(Failure::new("an input is required: -input FILE, or -input - for stdin"));
    }
    let config = flags.load()?;
    let mut from: Box<dyn BufRead> = if input == "-" {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = File::open(input)
            .map_err(|error| Failure::new(format!("open {input}: {}", go::io_error(&error))))?;
        Box::new(BufReader::new(file))
    };
    let mut progress = RowProgress::new(io);
    let show = &mut |table: &str, rows| progress.show(table, rows);
    let restored = restore(&config.plugins.database, &mut from, force, show)?;
    progress.clear();
    io.print(&format!(
        "Restored: {}\nA new change log starts at revision {}: agents and servers read all anew.\n{}",
        describe(&restored.summary),
        restored.revision,
        keys(&config)
    ))
}
