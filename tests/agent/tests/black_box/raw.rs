//! An HTTP/2 client that does what it is told and nothing else: it reads when the test reads, and grants no window unless
//! the test does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// One connection.
#[derive(Debug)]
pub struct Raw {
    socket: UnixStream,
    next_stream: u32,
}

/// What came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;

impl Raw {
    /// `window` is what the agent may send on each stream before it is granted more.
    pub fn connect(socket: &Path, window: u32) -> Result<Self> {
        let socket = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        socket.set_read_timeout(Some(Duration::from_mins(1)))?;
        let mut raw = Self { socket, next_stream: 1 };
        raw.socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        settings.extend(window.to_be_bytes());
        raw.send(SETTINGS, 0, 0, &settings)?;
        Ok(raw)
    }

    /// Begins a call with one message, the only one if `last`. Returns its stream.
    pub fn call(&mut self, path: &str, message: &[u8], last: bool) -> Result<u32> {
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut headers = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("workload.spiffe.io", "true"),
        ] {
            // RFC 7541 §6.2.2: a literal without index, new name, no Huffman code.
            headers.push(0);
            for text in [name, value] {
                ensure!(text.len() < 127, "{text}");
                headers.push(u8::try_from(text.len())?);
                headers.extend(text.as_bytes());
            }
        }
        self.send(HEADERS, END_HEADERS, stream, &headers)?;
        let mut data = vec![0];
        data.extend(u32::try_from(message.len())?.to_be_bytes());
        data.extend(message);
        self.send(DATA, if last { END_STREAM } else { 0 }, stream, &data)?;
        Ok(stream)
    }

    /// Opens FetchX509SVID.
    pub fn fetch_x509_svid(&mut self) -> Result<u32> {
        self.call("/SpiffeWorkloadAPI/FetchX509SVID", &[], true)
    }

    /// Lets the agent send so much more on a stream (0: the connection).
    pub fn grant(&mut self, stream: u32, bytes: u32) -> Result<()> {
        self.send(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
    }

    /// The next frame that carries something: settings and pings are answered.
    pub fn next(&mut self) -> Result<Frame> {
        loop {
            let mut head = [0; 9];
            self.socket.read_exact(&mut head)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.socket.read_exact(&mut payload)?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            match frame.kind {
                SETTINGS | PING if frame.flags & ACK == 0 => {
                    let payload: &[u8] = if frame.kind == PING { &frame.payload } else { &[] };
                    self.send(frame.kind, ACK, 0, payload)?;
                }
                SETTINGS | PING | WINDOW_UPDATE => {}
                _ => return Ok(frame),
            }
        }
    }

    /// Reads until a whole message has come on any stream; a refusal is an error.
    pub fn message(&mut self) -> Result<Vec<u8>> {
        let mut message = Vec::new();
        loop {
            let frame = self.next()?;
            match frame.kind {
                DATA => message.extend(frame.payload),
                HEADERS if frame.flags & END_STREAM == 0 => {}
                _ => bail!("no message but {frame:?}: {}", String::from_utf8_lossy(&frame.payload)),
            }
            if let Some((head, body)) = message.split_at_checked(5)
                && body.len() == u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize
            {
                return Ok(body.to_vec());
            }
        }
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<()> {
        let mut frame = u32::try_from(payload.len())?.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        Ok(self.socket.write_all(&frame)?)
    }
}
