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
//! | [`files`] | `-write`: public and private files |
//! | [`logger`] | the `logger` commands' levels and text, server and agent alike |

pub mod connect;
pub mod failure;
pub mod files;
pub mod go;
pub mod gojson;
pub mod io;
pub mod logger;
pub mod printer;
pub mod program;
pub mod session;
pub mod socket;

pub use failure::{Context, Failure};
pub use io::Io;
pub use printer::Output;
pub use program::{Command, Program, Run};
pub use session::{Api, ClientCommand, Session};
