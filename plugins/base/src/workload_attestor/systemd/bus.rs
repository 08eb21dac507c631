//! A connection to a D-Bus daemon: who we are, then calls one after the other.

use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::wire::{Call, HEAD, Message, WireError, parse, rest};

/// The bus greets with a signal or two; more between a call and its answer is not from a bus.
const MAX_OTHERS: usize = 64;
/// A line of the greeting.
const MAX_LINE: usize = 512;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("failed to open dbus connection: {}: {source}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the bus does not accept user {0}")]
    Rejected(u32),
    #[error("the connection to the bus broke: {0}")]
    Io(#[from] io::Error),
    #[error("the bus sent {0}")]
    Wire(#[from] WireError),
    #[error("the bus sent other things than an answer")]
    NoAnswer,
    #[error("{name}: {text}")]
    Refused { name: String, text: String },
}

pub struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    /// Connects, says which user this is and takes a name, which every bus asks for first.
    pub async fn connect(socket: &Path) -> Result<Self, BusError> {
        let connected = UnixStream::connect(socket).await;
        let stream = connected.map_err(|source| BusError::Connect { socket: socket.to_owned(), source })?;
        let mut bus = Self { stream, serial: 0 };
        bus.authenticate().await?;
        let hello = Call {
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            destination: "org.freedesktop.DBus",
            arguments: &[],
        };
        bus.call(&hello).await?;
        Ok(bus)
    }

    /// `AUTH EXTERNAL` (D-Bus specification, "Authentication Protocol"): the kernel tells the bus who we are.
    async fn authenticate(&mut self) -> Result<(), BusError> {
        let user = rustix::process::geteuid().as_raw();
        let name = crate::hex(user.to_string().as_bytes());
        self.stream.write_all(format!("\0AUTH EXTERNAL {name}\r\n").as_bytes()).await?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() == MAX_LINE {
                return Err(BusError::Wire(WireError::Malformed("greeting")));
            }
            line.push(self.stream.read_u8().await?);
        }
        if !line.starts_with(b"OK ") {
            return Err(BusError::Rejected(user));
        }
        self.stream.write_all(b"BEGIN\r\n").await?;
        Ok(())
    }

    pub async fn call(&mut self, call: &Call<'_>) -> Result<Message, BusError> {
        self.serial += 1;
        self.stream.write_all(&call.encode(self.serial)).await?;
        for _ in 0..MAX_OTHERS {
            let message = self.receive().await?;
            if message.reply_to != self.serial {
                continue;
            }
            return match message.error.clone() {
                None => Ok(message),
                Some(name) => Err(BusError::Refused { name, text: message.text().unwrap_or_default() }),
            };
        }
        Err(BusError::NoAnswer)
    }

    async fn receive(&mut self) -> Result<Message, BusError> {
        let mut bytes = vec![0; HEAD];
        self.stream.read_exact(&mut bytes).await?;
        let head = bytes.first_chunk().ok_or(WireError::Short)?;
        let rest = rest(head)?;
        bytes.resize(HEAD + rest, 0);
        self.stream.read_exact(&mut bytes[HEAD..]).await?;
        Ok(parse(&bytes)?)
    }
}
