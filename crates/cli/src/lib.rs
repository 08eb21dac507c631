//! What every command shares: the table of commands, the socket it talks to, its output and its errors.
//!
//! | module | what it is |
//! |---|---|
//! | [`program`] | a program's commands by name: dispatch, help, `--version`, refusals |
//! | [`session`] | one client command: flags → socket → call → output, exit code |
//! | [`socket`] | which Unix socket: `-socketPath`, `-instance`, environment (spire.md §5.1) |
//! | [`connect`] | a lazy gRPC channel to it; dial errors worded as grpc-go words them |
//! | [`printer`] | `-output pretty|json`; protobuf messages as SPIRE's JSON |
//! | [`failure`] | the error of a command: one line of text |
//! | [`go`] | how Go writes times, durations, numbers, system errors |
//! | [`gojson`] | encoding/json's view of a file a user gave us: its errors, its loose keys |
//! | [`daemon`] | `run` from its configuration to its exit code: log, signals, drain |
//! | [`settings`] | what both configuration files share: errors, telemetry, health checks, plugin blocks |
//! | [`validate`], [`healthcheck`], [`debug`] | the commands both programs have |
//! | [`files`] | `-write`: public and private files |
//! | [`logger`] | the `logger` commands, server and agent alike |

pub mod connect;
pub mod daemon;
pub mod debug;
pub mod failure;
pub mod files;
pub mod go;
pub mod gojson;
pub mod healthcheck;
pub mod io;
pub mod logger;
pub mod printer;
pub mod program;
pub mod session;
pub mod settings;
pub mod socket;
pub mod validate;

pub use daemon::Daemon;
pub use failure::{Context, Failure};
pub use io::Io;
pub use printer::Output;
pub use program::{Command, Program, Run};
pub use session::{Api, ClientCommand, Session};
