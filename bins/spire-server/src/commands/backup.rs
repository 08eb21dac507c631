//! `backup`: the database's state in one file. Ours; SPIRE has no such command.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use steeple_cli::{Failure, Io, go};
use steeple_config::{Flag, FlagSet};
use steeple_datastore_sql::{BackupSummary, backup};
use steeple_runtime::clock;

use super::progress::RowProgress;
use crate::config::{Config, RunFlags};

/// What the two commands share.
pub(super) struct ConfigFlags {
    config: Flag<String>,
    expand_env: Flag<bool>,
}

impl ConfigFlags {
    pub fn new(flags: &mut FlagSet) -> Self {
        Self {
            config: flags.string(
                "config",
                RunFlags::DEFAULT_CONFIG,
                "Path of the server's configuration file",
            ),
            expand_env: flags.bool("expandEnv", false, "Replace $VAR and ${VAR} in the configuration file"),
        }
    }

    pub fn load(&self) -> Result<Config, Failure> {
        let flags =
            RunFlags { config: self.config.get(), expand_env: self.expand_env.get(), ..RunFlags::default() };
        Ok(Config::load_with(&flags)?)
    }
}

/// The command. Answers the exit code.
pub fn command(args: &[String]) -> u8 {
    let mut io = Io::process();
    let mut flags = FlagSet::new("backup");
    let config = ConfigFlags::new(&mut flags);
    let output = flags.string("output", STDOUT, "File to write, for its owner alone; '-' is stdout");
    if let Err(error) = flags.parse(args) {
        io.eprint(&error.output());
        return 1;
    }
    finish(&mut io, |io| run(io, &config, &output.get()))
}

/// Prints why a command failed. Answers the exit code.
pub(super) fn finish(io: &mut Io, run: impl FnOnce(&mut Io) -> Result<(), Failure>) -> u8 {
    steeple_runtime::install_crypto_provider();
    match run(io) {
        Ok(()) => 0,
        Err(failure) => {
            io.eprint(&format!("Error: {failure}\n"));
            1
        }
    }
}

const STDOUT: &str = "-";

fn run(io: &mut Io, flags: &ConfigFlags, output: &str) -> Result<(), Failure> {
    let config = flags.load()?;
    let mut progress = RowProgress::new(io);
    let now = clock::system().now();
    let database = config.plugins.database.clone();
    let summary = if output == STDOUT {
        let mut out = BufWriter::new(io::stdout());
        backup(&database, now, &mut out, &mut |table, rows| progress.show(table, rows))?
    } else {
        let mut out = NewFile::create(output)?;
        let summary = backup(&database, now, &mut out, &mut |table, rows| progress.show(table, rows))?;
        out.keep()?;
        summary
    };
    progress.clear();
    let text = format!("Backup written: {}\n{}", describe(&summary), keys(&config));
    // The file itself may be stdout.
    if output == STDOUT {
        io.eprint(&text);
        return Ok(());
    }
    io.print(&text)
}

/// What is in a file, on one line.
pub(super) fn describe(summary: &BackupSummary) -> String {
    let count = |table: &str| summary.rows.get(table).copied().unwrap_or_default();
    let header = &summary.header;
    format!(
        "{} registration entries, {} agents, {} bundles, {} federation relationships, {} CA journals, {} join tokens; \
         revision {}, schema version {}, {}, taken at {}",
        count("registered_entries"),
        count("attested_node_entries"),
        count("bundles"),
        count("federated_trust_domains"),
        count("ca_journals"),
        count("join_tokens"),
        header.revision,
        header.schema_version,
        header.engine,
        header.created_at
    )
}

/// What no backup of a database holds.
pub(super) fn keys(config: &Config) -> String {
    let key_managers = config.plugins.loaded.iter().filter(|(kind, _)| kind == "KeyManager");
    let names: Vec<&str> = key_managers.map(|(_, name)| name.as_str()).collect();
    format!("Keys are not in the database: keep those of KeyManager {:?}, too.\n", names.join(", "))
}

/// A file that is there as a whole or not at all.
struct NewFile {
    out: BufWriter<File>,
    part: PathBuf,
    path: PathBuf,
    kept: bool,
}

impl NewFile {
    fn create(path: &str) -> Result<Self, Failure> {
        let part = PathBuf::from(format!("{path}.part"));
        // A part that a stopped backup left may have another mode.
        let _ = fs::remove_file(&part);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
        let file = file.map_err(|error| failed(&part, &error))?;
        Ok(Self { out: BufWriter::new(file), part, path: path.into(), kept: false })
    }

    /// Synced before it gets its name.
    fn keep(mut self) -> Result<(), Failure> {
        let kept = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        kept.and_then(|()| fs::rename(&self.part, &self.path)).map_err(|error| failed(&self.path, &error))?;
        self.kept = true;
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.part);
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("open {}: {}", path.display(), go::io_error(error)))
}
