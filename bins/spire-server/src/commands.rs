//! The commands of `spire-server` by name. Those that call the API are here; `run`, `validate` and `healthcheck` live
//! beside this module: functions `fn(&[String]) -> u8` from the arguments behind the name to the exit code, which print
//! their usage on stderr for `["-h"]`.

mod agent;
mod args;
mod bundle;
mod debug;
mod entry;
mod jwt;
mod logger;
mod output;
mod token;
mod x509;

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
    // SPIRE has these; listed in docs/differences.md.
    not_yet("federation create"),
    not_yet("federation delete"),
    not_yet("federation list"),
    not_yet("federation refresh"),
    not_yet("federation show"),
    not_yet("federation update"),
    not_yet("localauthority jwt activate"),
    not_yet("localauthority jwt prepare"),
    not_yet("localauthority jwt revoke"),
    not_yet("localauthority jwt show"),
    not_yet("localauthority jwt taint"),
    not_yet("localauthority x509 activate"),
    not_yet("localauthority x509 prepare"),
    not_yet("localauthority x509 revoke"),
    not_yet("localauthority x509 show"),
    not_yet("localauthority x509 taint"),
    not_yet("upstreamauthority revoke"),
    not_yet("upstreamauthority taint"),
    not_yet("wit mint"),
];

const fn client<C: ClientCommand>(name: &'static str, about: &'static str) -> Command {
    Command { name, about, run: Run::With(session::run::<C>) }
}

const fn not_yet(name: &'static str) -> Command {
    Command { name, about: "", run: Run::NotYet }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_listed_among_the_differences() {
        let book = include_str!("../../../docs/differences.md");
        for command in COMMANDS.iter().filter(|command| matches!(command.run, Run::NotYet)) {
            let line = format!("`{}` is refused by name", command.name);
            assert!(book.contains(&line), "docs/differences.md does not say: {line}");
        }
    }
}
