//! The commands of `spire-server` by name. Those that call the API are here; `run`, `validate` and `healthcheck` live
//! beside this module: functions `fn(&[String]) -> u8` from the arguments behind the name to the exit code, which print
//! their usage on stderr for `["-h"]`.

mod agent;
mod args;
mod backup;
mod bundle;
mod debug;
mod entry;
mod explain;
mod federation;
mod jwt;
mod localauthority;
mod logger;
mod output;
mod progress;
mod restore;
mod rotate;
mod token;
mod upstreamauthority;
mod wit;
mod x509;

use localauthority::{Change, Jwt, X509};
use steeple_cli::{ClientCommand, Command, Program, Run, session};

pub const PROGRAM: Program =
    Program { name: "spire-server", version: crate::version::VERSION, commands: COMMANDS };

const COMMANDS: &[Command] = &[
    Command { name: "run", about: "Runs the server", run: Run::With(crate::run::command) },
    Command {
        name: "validate",
        about: "Checks a configuration file",
        run: Run::With(crate::validate::command),
    },
    Command {
        name: "backup",
        about: "Writes the database's state into one file",
        run: Run::With(backup::command),
    },
    Command {
        name: "restore",
        about: "Fills the database from a file of backup",
        run: Run::With(restore::command),
    },
    client::<crate::healthcheck::HealthCheck>("healthcheck", "Asks a running server how it is"),
    client::<agent::Ban>("agent ban", "Bans an agent: it may not attest again"),
    client::<agent::Count>("agent count", "Counts attested agents"),
    client::<agent::Evict>("agent evict", "Removes an agent: it may attest again"),
    client::<agent::List>("agent list", "Shows attested agents"),
    client::<agent::Purge>("agent purge", "Deletes agents whose SVID ended long ago"),
    client::<agent::Show>("agent show", "Shows one agent"),
    client::<bundle::Count>("bundle count", "Counts bundles"),
    client::<bundle::Delete>("bundle delete", "Deletes the bundle of another trust domain"),
    client::<bundle::List>("bundle list", "Shows the bundles of other trust domains"),
    client::<bundle::Set>("bundle set", "Sets the bundle of another trust domain"),
    client::<bundle::Show>("bundle show", "Shows the server's own bundle"),
    client::<debug::GetInfo>("debug getinfo", "Shows counts and the server's own SVID"),
    client::<entry::Count>("entry count", "Counts registration entries"),
    client::<entry::Create>("entry create", "Creates registration entries"),
    client::<entry::Delete>("entry delete", "Deletes registration entries"),
    client::<entry::Show>("entry show", "Shows registration entries"),
    client::<entry::Update>("entry update", "Replaces registration entries"),
    client::<jwt::Mint>("jwt mint", "Makes a JWT-SVID without an entry"),
    client::<logger::Get>("logger get", "Shows the log level"),
    client::<logger::Reset>("logger reset", "Sets the log level back to that of the start"),
    client::<logger::Set>("logger set", "Sets the log level"),
    client::<token::Generate>("token generate", "Makes a join token"),
    client::<x509::Mint>("x509 mint", "Makes an X.509-SVID without an entry"),
    client::<federation::Create>("federation create", "Creates relationships with other trust domains"),
    client::<federation::Delete>("federation delete", "Deletes one"),
    client::<federation::List>("federation list", "Shows them"),
    client::<federation::Refresh>("federation refresh", "Fetches the other trust domain's bundle at once"),
    client::<federation::Show>("federation show", "Shows one"),
    client::<federation::Update>("federation update", "Replaces relationships"),
    client::<Change<Jwt, localauthority::Activate>>(
        "localauthority jwt activate",
        "Makes the prepared JWT authority the one that signs",
    ),
    client::<Change<Jwt, localauthority::Prepare>>(
        "localauthority jwt prepare",
        "Makes the next JWT authority",
    ),
    client::<Change<Jwt, localauthority::Revoke>>(
        "localauthority jwt revoke",
        "Takes a tainted JWT authority out of the bundle",
    ),
    client::<Change<Jwt, localauthority::Taint>>(
        "localauthority jwt taint",
        "Marks an old JWT authority: what it signed is replaced",
    ),
    client::<localauthority::Show<Jwt>>("localauthority jwt show", "Shows the JWT authorities"),
    client::<Change<X509, localauthority::Activate>>(
        "localauthority x509 activate",
        "Makes the prepared X.509 authority the one that signs",
    ),
    client::<Change<X509, localauthority::Prepare>>(
        "localauthority x509 prepare",
        "Makes the next X.509 authority",
    ),
    client::<Change<X509, localauthority::Revoke>>(
        "localauthority x509 revoke",
        "Takes a tainted X.509 authority out of the bundle",
    ),
    client::<Change<X509, localauthority::Taint>>(
        "localauthority x509 taint",
        "Marks an old X.509 authority: what it signed is replaced",
    ),
    client::<localauthority::Show<X509>>("localauthority x509 show", "Shows the X.509 authorities"),
    client::<upstreamauthority::Revoke>(
        "upstreamauthority revoke",
        "Takes a tainted upstream authority out of the bundle",
    ),
    client::<upstreamauthority::Taint>(
        "upstreamauthority taint",
        "Marks an upstream authority: what stands below it is replaced",
    ),
    Command {
        name: "wit mint",
        about: "Makes a WIT-SVID without an entry",
        run: Run::Behind(wit::enabled, session::run::<wit::Mint>),
    },
    // Steeple's own.
    client::<explain::Explain>("explain", "Says who gets the SVIDs of an entry or why nobody does"),
    client::<rotate::Agent>("agent rotate", "Has agents renew their SVID and all they hold at once"),
    client::<rotate::Entry>("entry rotate", "Has the SVIDs of entries issued again at once"),
];

const fn client<C: ClientCommand>(name: &'static str, about: &'static str) -> Command {
    Command { name, about, run: Run::With(session::run::<C>) }
}
