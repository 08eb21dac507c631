//! The commands of `spire-agent` by name. Those that call an API are here; `run`, `validate` and `healthcheck` live
//! beside this module: functions `fn(&[String]) -> u8` from the arguments behind the name to the exit code, which print
//! their usage on stderr for `["-h"]`.

mod api;
mod debug;
mod logger;

use steeple_cli::{ClientCommand, Command, Program, Run, session};

pub const PROGRAM: Program =
    Program { name: "spire-agent", version: crate::version::VERSION, commands: COMMANDS };

const COMMANDS: &[Command] = &[
    Command { name: "run", about: "Runs the agent", run: Run::With(crate::run::command) },
    Command {
        name: "validate",
        about: "Checks a configuration file",
        run: Run::With(crate::validate::command),
    },
    client::<crate::healthcheck::HealthCheck>("healthcheck", "Asks a running agent how it is"),
    client::<api::Explain>("api explain", "Says why a workload has an identity or not"),
    client::<api::FetchX509>("api fetch", "Same as api fetch x509"),
    client::<api::FetchJwt>("api fetch jwt", "Fetches JWT-SVIDs for an audience from the Workload API"),
    client::<api::FetchX509>("api fetch x509", "Fetches X.509-SVIDs from the Workload API"),
    Command {
        name: "api mtls-check",
        about: "Does a handshake with a peer and says why it fails",
        run: Run::With(api::mtls_check::command),
    },
    client::<api::ValidateJwt>("api validate jwt", "Has the Workload API validate a JWT-SVID"),
    client::<api::Watch>("api watch", "Shows X.509-SVIDs each time the Workload API sends them"),
    client::<debug::GetInfo>("debug getinfo", "Shows the last sync, caches and the agent's own SVID"),
    client::<logger::Get>("logger get", "Shows the log level"),
    client::<logger::Reset>("logger reset", "Sets the log level back to that of the start"),
    client::<logger::Set>("logger set", "Sets the log level"),
];

const fn client<C: ClientCommand>(name: &'static str, about: &'static str) -> Command {
    Command { name, about, run: Run::With(session::run::<C>) }
}
