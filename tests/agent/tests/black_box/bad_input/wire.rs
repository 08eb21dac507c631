//! What no client library sends, written by hand. Each attack leaves its connection open, so that what it cost is there
//! to be seen.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

type Attack = fn(&Path) -> Result<Vec<UnixStream>>;

pub const ATTACKS: &[(&str, Attack)] = &[
    ("noise in place of HTTP/2", noise),
    ("HTTP/1.1", http1),
    ("frames of unknown types", unknown_frames),
    ("frames that contradict the protocol", wrong_frames),
    ("headers of a megabyte", huge_headers),
    ("headers that never end", endless_headers),
    ("a message of a gigabyte", huge_message),
    ("a request that never ends", endless_request),
    ("ten thousand streams", many_streams),
    ("streams opened and reset at once", rapid_reset),
    ("pings and settings without end", control_frames),
];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HPACK without an index: a literal name and value.
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    for part in [name, value] {
        let mut rest = part.len();
        if rest < 127 {
            out.push(rest as u8);
        } else {
            out.push(127);
            rest -= 127;
            while rest >= 128 {
                out.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            out.push(rest as u8);
        }
        out.extend(part);
    }
    out
}

fn call() -> Vec<u8> {
    let fields: [(&str, &str); 7] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/SpiffeWorkloadAPI/FetchX509SVID"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("workload.spiffe.io", "true"),
    ];
    fields.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect()
}

fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok(stream)
}

fn http2(socket: &Path) -> Result<UnixStream> {
    let mut stream = connect(socket)?;
    stream.write_all(PREFACE)?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    Ok(stream)
}

/// Writes until all is written or the agent has had enough: it closes, or no longer reads.
fn pour(mut stream: UnixStream, pieces: impl Iterator<Item = Vec<u8>>) -> Result<Vec<UnixStream>> {
    let mut answer = vec![0; 1 << 16];
    stream.set_nonblocking(false)?;
    for (number, piece) in pieces.enumerate() {
        if stream.write_all(&piece).is_err() {
            break;
        }
        if number % 64 == 63 {
            // What it answers has to go somewhere.
            stream.set_nonblocking(true)?;
            while matches!(stream.read(&mut answer), Ok(read) if read > 0) {}
            stream.set_nonblocking(false)?;
        }
    }
    match stream.read(&mut answer) {
        Ok(_) => {}
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionReset
            ) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(vec![stream])
}

fn noise(socket: &Path) -> Result<Vec<UnixStream>> {
    let mut state: u32 = 1;
    let mut byte = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    pour(connect(socket)?, (0..64).map(move |_| (0..1024).map(|_| byte()).collect()))
}

fn http1(socket: &Path) -> Result<Vec<UnixStream>> {
    let line = b"GET /SpiffeWorkloadAPI/FetchX509SVID HTTP/1.1\r\nHost: localhost\r\nworkload.spiffe.io: true\r\n\r\n";
    pour(connect(socket)?, std::iter::once(line.to_vec()))
}

fn unknown_frames(socket: &Path) -> Result<Vec<UnixStream>> {
    pour(http2(socket)?, (10..=255).map(|kind| frame(kind, 0xff, 0, &[7; 100])))
}

fn wrong_frames(socket: &Path) -> Result<Vec<UnixStream>> {
    let wrong = [
        frame(DATA, 0, 0, b"data of no stream"),
        frame(DATA, 0, 7, b"data of a stream that is not open"),
        frame(HEADERS, END_HEADERS, 2, &call()),
        frame(CONTINUATION, 0, 1, &[1]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0]),
        frame(SETTINGS, 1, 0, &[1, 2, 3]),
        frame(HEADERS, END_HEADERS, 1, &[0xff; 40]),
        frame(PING, 0, 0, &[1]),
        frame(SETTINGS, 0, 0, &[0, 5, 0xff, 0xff, 0xff, 0xff]),
        vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1],
    ];
    let mut open = Vec::new();
    for frame in wrong {
        open.extend(pour(http2(socket)?, std::iter::once(frame))?);
    }
    Ok(open)
}

fn huge_headers(socket: &Path) -> Result<Vec<UnixStream>> {
    let big = field(b"x-big", &vec![b'a'; 16_000]);
    let first = frame(HEADERS, 0, 1, &call());
    let more =
        (0..64).map(move |number| frame(CONTINUATION, if number == 63 { END_HEADERS } else { 0 }, 1, &big));
    pour(http2(socket)?, std::iter::once(first).chain(more))
}

fn endless_headers(socket: &Path) -> Result<Vec<UnixStream>> {
    let first = frame(HEADERS, 0, 1, &call());
    let more = (0..20_000)
        .map(|number: u32| frame(CONTINUATION, 0, 1, &field(format!("x-{number}").as_bytes(), b"v")));
    pour(http2(socket)?, std::iter::once(first).chain(more))
}

fn huge_message(socket: &Path) -> Result<Vec<UnixStream>> {
    let first = frame(HEADERS, END_HEADERS, 1, &call());
    let mut length = vec![0];
    length.extend((1_u32 << 30).to_be_bytes());
    let pieces = std::iter::once(length).chain(std::iter::repeat_n(vec![0; 16_000], 2_000));
    pour(http2(socket)?, std::iter::once(first).chain(pieces.map(|piece| frame(DATA, 0, 1, &piece))))
}

fn endless_request(socket: &Path) -> Result<Vec<UnixStream>> {
    let first = frame(HEADERS, END_HEADERS, 1, &call());
    // Empty messages, one after the other, where one is awaited.
    let message = frame(DATA, 0, 1, &[0, 0, 0, 0, 0]);
    pour(http2(socket)?, std::iter::once(first).chain(std::iter::repeat_n(message, 20_000)))
}

fn many_streams(socket: &Path) -> Result<Vec<UnixStream>> {
    let call = call();
    pour(http2(socket)?, (0..10_000).map(move |number| frame(HEADERS, END_HEADERS, 2 * number + 1, &call)))
}

fn rapid_reset(socket: &Path) -> Result<Vec<UnixStream>> {
    let call = call();
    let pieces = (0..10_000).map(move |number| {
        let stream = 2 * number + 1;
        let mut both = frame(HEADERS, END_HEADERS, stream, &call);
        both.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        both
    });
    pour(http2(socket)?, pieces)
}

fn control_frames(socket: &Path) -> Result<Vec<UnixStream>> {
    let mut both = frame(PING, 0, 0, &[1; 8]);
    both.extend(frame(SETTINGS, 0, 0, &[]));
    pour(http2(socket)?, std::iter::repeat_n(both, 20_000))
}
