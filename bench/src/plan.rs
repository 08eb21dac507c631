//! The command line: what runs, on what, how large.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::scenario;
use crate::subject::Running;

/// Sizes, each a flag: name, in the short set, with `--full`, what it counts.
pub const SIZES: &[(&str, usize, usize, &str)] = &[
    ("entries", 3000, 100_000, "entries created, listed, counted and deleted"),
    ("batch", 50, 50, "entries of one BatchCreateEntry"),
    ("attestations", 60, 1000, "agents attested by each attestor"),
    ("sync-entries", 2000, 10_000, "entries of the agent that syncs"),
    ("syncs", 5, 10, "syncs of each kind"),
    ("fan-out-agents", 50, 1000, "agents that one change reaches"),
    ("trials", 3, 20, "entries whose way to a workload is timed"),
    ("other-entries", 0, 100_000, "entries of other nodes while propagation and signing are measured"),
    ("svids", 1500, 10_000, "X.509-SVIDs signed in each batch size, and minted"),
    ("jwts", 500, 5000, "JWT-SVIDs signed, and minted"),
    ("calls", 300, 2000, "calls of the Workload API and SDS of each kind"),
    ("streams", 100, 1000, "Workload API streams held open"),
    ("updates", 2, 6, "changes pushed to each held stream"),
    ("agents", 100, 1000, "agents held connected"),
    ("clients", 50, 500, "workloads connected to the agent that restarts"),
    ("restart-entries", 1000, 10_000, "entries of the agent that restarts"),
    ("restarts", 3, 10, "restarts of each kind"),
    ("fresh", 20, 100, "client processes that start, fetch and end"),
    ("cold-entries", 3000, 100_000, "entries of the server that starts"),
    ("log-rows", 15_000, 500_000, "rows of Steeple's change log when that server starts"),
    ("storm-agents", 20, 200, "agents whose SVIDs expire together"),
    ("storm-svids", 20, 50, "SVIDs of each of them"),
    ("idle-seconds", 5, 60, "length of each idle window"),
    ("scale-entries", 100_000, 1_000_000, "entries of the scale run (`--only scale-entries`)"),
    ("scale-agents", 2000, 10_000, "agents of the scale run (`--only scale-agents`)"),
    ("database-entries", 10_000, 100_000, "entries on each database (`--only databases`)"),
];

/// `--only nothing`: reports what `--with` names.
pub const NOTHING: &str = "nothing";

/// The command line.
#[derive(Debug, Default)]
pub struct Plan {
    /// Folders with `spire-server` and `spire-agent`; the first is the one that is judged.
    pub bin_dirs: Vec<PathBuf>,
    pub running: Option<Running>,
    pub only: Vec<String>,
    pub full: bool,
    pub assert: bool,
    pub rounds: usize,
    pub json: Option<PathBuf>,
    pub html: Option<PathBuf>,
    pub markdown: Option<PathBuf>,
    pub sizing: Option<PathBuf>,
    /// Files that earlier runs wrote with `--json`.
    pub with: Vec<PathBuf>,
    pub databases: Vec<steeple_e2e::Engine>,
    /// Print what PostgreSQL spent its time on.
    pub statements: bool,
    sizes: BTreeMap<&'static str, usize>,
}

impl Plan {
    /// `None` when only the help was wanted.
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut plan = Self { rounds: 1, ..Self::default() };
        if let Some(dir) = std::env::var_os("STEEPLE_BIN_DIR") {
            plan.bin_dirs.push(dir.into());
        }
        let mut running = Running::default();
        let mut args = args.peekable();
        let mut named = false;
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} takes a value"));
            match arg.as_str() {
                "--help" | "-h" => {
                    help();
                    return Ok(None);
                }
                "--bin-dir" => {
                    if !std::mem::replace(&mut named, true) {
                        plan.bin_dirs.clear();
                    }
                    plan.bin_dirs.push(value()?.into());
                }
                "--against" => plan.bin_dirs.push(value()?.into()),
                "--only" => plan.only.extend(value()?.split(',').map(str::to_owned)),
                "--full" => plan.full = true,
                "--assert" => plan.assert = true,
                "--rounds" => plan.rounds = value()?.parse()?,
                "--json" => plan.json = Some(value()?.into()),
                "--html" => plan.html = Some(value()?.into()),
                "--markdown" => plan.markdown = Some(value()?.into()),
                "--sizing" => plan.sizing = Some(value()?.into()),
                "--with" => plan.with.push(value()?.into()),
                "--database" => plan.databases.push(value()?.parse()?),
                "--statements" => plan.statements = true,
                "--server-socket" => running.server_socket = value()?.into(),
                "--workload-socket" => running.workload_socket = value()?.into(),
                "--server-address" => running.address = value()?,
                "--parent" => running.parent = value()?,
                flag => {
                    let known = SIZES.iter().find(|(name, ..)| flag.strip_prefix("--") == Some(name));
                    let (name, ..) = known.with_context(|| format!("no option {flag}; --help lists them"))?;
                    plan.sizes
                        .insert(name, value()?.parse().with_context(|| format!("{flag} takes a number"))?);
                }
            }
        }
        if running != Running::default() {
            plan.running = Some(running.complete()?);
        }
        for name in &plan.only {
            if name != NOTHING && scenario::find(name).is_none() {
                bail!("no scenario {name}; --help lists them");
            }
        }
        if plan.bin_dirs.is_empty() && plan.running.is_none() {
            bail!(
                "--bin-dir names the folder with spire-server and spire-agent, --server-socket a running server"
            );
        }
        Ok(Some(plan))
    }

    /// One of [`SIZES`].
    pub fn size(&self, name: &str) -> usize {
        let default = SIZES.iter().find(|(known, ..)| *known == name);
        let default = default.map_or(0, |(_, short, full, _)| if self.full { *full } else { *short });
        self.sizes.get(name).copied().unwrap_or(default)
    }

    /// For `--assert`: sizes that a slow machine gets through in a minute or two.
    pub fn shorten(&mut self, sizes: &[(&'static str, usize)]) {
        for (name, size) in sizes {
            self.sizes.entry(name).or_insert(*size);
        }
    }
}

#[allow(clippy::print_stdout, reason = "this is the help")]
fn help() {
    println!(
        "steeple-bench: the same work on Steeple, on SPIRE or on both, by turns, over their public APIs\n\n\
         steeple-bench --bin-dir DIR [--against DIR] [--full] [--only NAME,…] [--rounds N] [--json FILE] [--html FILE] [--markdown FILE] [--SIZE N]…\n\
         steeple-bench --server-socket PATH --workload-socket PATH --server-address HOST:PORT --parent ID --only NAME,…\n\
         steeple-bench --bin-dir DIR --assert     generous limits for CI; the run fails past one\n\n\
         --bin-dir DIR      folder with spire-server and spire-agent (default: STEEPLE_BIN_DIR)\n\
         --against DIR      another such folder, measured by turns with the first: SPIRE's\n\
         --full             the large sizes and all scenarios\n\
         --with FILE        what an earlier run wrote with --json is reported, too; `--only nothing` reports it alone\n\
         --sizing FILE      docs/operations/sizing.md from the scale runs\n\
         --rounds N         each scenario N times on each, the order reversed each time\n\
         --database ENGINE  for `databases`: sqlite, postgres, mariadb, mysql8; --statements prints PostgreSQL's\n\n\
         Scenarios (* only with --full or --only):"
    );
    for scenario in scenario::ALL {
        println!("  {}{:<16} {}", if scenario.short { ' ' } else { '*' }, scenario.name, scenario.what);
    }
    println!("\nSizes (short, full):");
    for (name, short, full, what) in SIZES {
        println!("  --{name:<18} {short:>7} {full:>8}  {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Plan> {
        let plan = Plan::parse(line.split_whitespace().map(str::to_owned))?;
        plan.context("help")
    }

    #[test]
    fn each_size_is_a_flag_and_has_two_defaults() {
        let plan = parse("--bin-dir a --against b --entries 7 --only sign,idle").unwrap();
        assert_eq!(plan.bin_dirs, [PathBuf::from("a"), "b".into()]);
        assert_eq!((plan.size("entries"), plan.size("batch")), (7, 50));
        assert_eq!(plan.only, ["sign", "idle"]);
        assert_eq!(parse("--bin-dir a --full").unwrap().size("entries"), 100_000);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (line, says) in [
            ("--bin-dir a --entrys 7", "no option --entrys"),
            ("--bin-dir a --only sing", "no scenario sing"),
            ("--bin-dir a --entries x", "--entries takes a number"),
            ("--bin-dir a --entries", "--entries takes a value"),
            ("--server-socket s", "--workload-socket"),
        ] {
            let error = format!("{:#}", parse(line).unwrap_err());
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
