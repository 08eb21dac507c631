use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::wire::{HEAD, rest};
use super::*;

/// A message of a bus, in either order of bytes: fields are (code, signature, value).
fn message(little: bool, kind: u8, fields: &[(u8, &str, Value<'_>)], body: &[Value<'_>]) -> Vec<u8> {
    let mut writer = Writer { little, bytes: Vec::new() };
    for value in body {
        writer.put(*value);
    }
    let body = std::mem::take(&mut writer.bytes);
    writer.bytes.extend([if little { b'l' } else { b'B' }, kind, 1, 1]);
    writer.number(body.len() as u32);
    writer.number(77);
    writer.number(0);
    for (code, signature, value) in fields {
        writer.align(8);
        writer.bytes.push(*code);
        writer.put(Value::Signature(signature));
        writer.put(*value);
    }
    let length = (writer.bytes.len() - HEAD) as u32;
    writer.bytes[12..16].copy_from_slice(&if little { length.to_le_bytes() } else { length.to_be_bytes() });
    writer.align(8);
    writer.bytes.extend(body);
    writer.bytes
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u32),
    Text(&'a str),
    Signature(&'a str),
}

struct Writer {
    little: bool,
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        let bytes = if self.little { number.to_le_bytes() } else { number.to_be_bytes() };
        self.bytes.extend(bytes);
    }

    fn put(&mut self, value: Value<'_>) {
        match value {
            Value::Number(number) => self.number(number),
            Value::Text(text) => {
                self.number(text.len() as u32);
                self.bytes.extend(text.as_bytes());
                self.bytes.push(0);
            }
            Value::Signature(text) => {
                self.bytes.push(text.len() as u8);
                self.bytes.extend(text.as_bytes());
                self.bytes.push(0);
            }
        }
    }
}

fn reply(little: bool, to: u32, signature: &str, body: &[Value<'_>]) -> Vec<u8> {
    let fields =
        [(5, "u", Value::Number(to)), (7, "s", Value::Text(":1.7")), (8, "g", Value::Signature(signature))];
    message(little, 2, &fields, body)
}

fn refusal(to: u32, name: &str) -> Vec<u8> {
    let fields = [(4, "s", Value::Text(name)), (5, "u", Value::Number(to)), (8, "g", Value::Signature("s"))];
    message(true, 3, &fields, &[Value::Text("because")])
}

/// What a fake bus answers to the call with this serial: 1 Hello, 2 GetUnitByPID, 3 Id, 4 FragmentPath.
type Script = fn(u32) -> Vec<u8>;

struct Fake {
    attestor: Systemd,
    connections: Arc<AtomicUsize>,
    _dir: TempDir,
    _task: JoinSet<()>,
}

fn bus(greeting: &'static str, script: Script) -> Fake {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bus");
    let listener = UnixListener::bind(&socket).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            serving.spawn(serve(stream, greeting, script));
        }
    });
    let attestor = Systemd::new(SystemdConfig { socket });
    Fake { attestor, connections, _dir: dir, _task: task }
}

async fn serve(mut stream: UnixStream, greeting: &str, script: Script) {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        line.push(byte);
    }
    assert!(line.starts_with(b"\0AUTH EXTERNAL "), "{line:?}");
    let _ = stream.write_all(greeting.as_bytes()).await;
    let mut begin = [0; 7];
    if stream.read_exact(&mut begin).await.is_err() {
        return;
    }
    assert_eq!(&begin, b"BEGIN\r\n");
    let mut head = [0; HEAD];
    while stream.read_exact(&mut head).await.is_ok() {
        let mut body = vec![0; rest(&head).unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let serial = u32::from_le_bytes(head[8..12].try_into().unwrap());
        let answer = script(serial);
        if answer.is_empty() {
            std::future::pending::<()>().await;
        }
        let _ = stream.write_all(&answer).await;
    }
}

fn nginx(serial: u32) -> Vec<u8> {
    let signal = message(true, 4, &[(1, "o", Value::Text("/x")), (3, "s", Value::Text("NameAcquired"))], &[]);
    match serial {
        1 => [reply(true, 1, "s", &[Value::Text(":1.9")]), signal].concat(),
        2 => reply(false, 2, "o", &[Value::Text("/org/freedesktop/systemd1/unit/nginx_2eservice")]),
        3 => reply(true, 3, "v", &[Value::Signature("s"), Value::Text("nginx.service")]),
        _ => reply(
            true,
            serial,
            "v",
            &[Value::Signature("s"), Value::Text("/lib/systemd/system/nginx.service")],
        ),
    }
}

async fn why(greeting: &'static str, script: Script) -> String {
    match bus(greeting, script).attestor.unit(1).await {
        Err(error) => error.to_string(),
        Ok(_) => panic!("a unit"),
    }
}

#[derive(Debug)]
struct Me;

impl Caller for Me {
    fn pid(&self) -> i32 {
        std::process::id() as i32
    }
    fn uid(&self) -> u32 {
        0
    }
    fn gid(&self) -> u32 {
        0
    }
    fn still_here(&self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_unit_is_told() {
    let fake = bus("OK 0123\r\n", nginx);
    let found = fake.attestor.attest(&Me).await.unwrap();
    assert_eq!(found, ["id:nginx.service", "fragment_path:/lib/systemd/system/nginx.service"]);
}

#[tokio::test]
async fn a_process_of_no_unit_has_no_selectors() {
    let script: Script = |serial| if serial == 2 { refusal(2, NO_UNIT) } else { nginx(serial) };
    assert!(bus("OK 0\r\n", script).attestor.attest(&Me).await.unwrap().is_empty());
}

#[tokio::test]
async fn refusals_and_lies_are_told_apart() {
    let denied = "org.freedesktop.DBus.Error.ServiceUnknown";
    assert_eq!(
        why("OK 0\r\n", |serial| if serial == 2 {
            refusal(2, "org.freedesktop.DBus.Error.ServiceUnknown")
        } else {
            nginx(serial)
        })
        .await,
        format!("{denied}: because")
    );
    assert!(why("REJECTED EXTERNAL\r\n", nginx).await.contains("does not accept user"));
    assert!(why("OK 0\r\n", |_| b"HTTP/1.1 400 Bad Request\r\n".to_vec()).await.contains("no D-Bus"));
    let wrong_type: Script = |serial| match serial {
        2 => reply(true, 2, "s", &[Value::Text("/org")]),
        _ => nginx(serial),
    };
    assert!(why("OK 0\r\n", wrong_type).await.contains("another type"));
    let wrong_path: Script = |serial| match serial {
        2 => reply(true, 2, "o", &[Value::Text("/org/../x")]),
        _ => nginx(serial),
    };
    assert!(why("OK 0\r\n", wrong_path).await.contains("object path"));
    // Signals only: no bus goes on like that.
    let chatter: Script = |_| message(true, 4, &[], &[]).repeat(MANY);
    assert!(why("OK 0\r\n", chatter).await.contains("other things"));
    let huge: Script = |_| {
        let mut bytes = reply(true, 1, "s", &[]);
        bytes[4..8].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
        bytes
    };
    assert!(why("OK 0\r\n", huge).await.contains("more than"));
}

const MANY: usize = 100;

#[tokio::test]
async fn nobody_listens() {
    let nowhere = Systemd::new(SystemdConfig { socket: "/nonexistent/bus".into() });
    let error = nowhere.attest(&Me).await.unwrap_err().to_string();
    assert!(error.contains("failed to open dbus connection: /nonexistent/bus"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_hangs_is_given_up_and_tried_by_one_at_a_time() {
    for (greeting, script) in [("OK 0\r\n", (|_| Vec::new()) as Script), ("OK without end", nginx)] {
        let fake = bus(greeting, script);
        let error = fake.attestor.attest(&Me).await.unwrap_err();
        assert!(error.to_string().contains("no answer within 3 s"), "{error}");
        let (first, second) = tokio::join!(fake.attestor.attest(&Me), fake.attestor.attest(&Me));
        assert!(matches!(first, Err(WorkloadAttestError::Other(_))), "{first:?}");
        assert!(matches!(second, Err(WorkloadAttestError::StillSilent(_))), "{second:?}");
        assert_eq!(fake.connections.load(Ordering::SeqCst), 2);
    }
}

#[test]
fn calls_are_what_the_specification_says() {
    // As busctl sends it.
    let call = Call {
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "Hello",
        destination: "org.freedesktop.DBus",
        arguments: &[],
    };
    let bytes = call.encode(1);
    assert_eq!(bytes.len() % 8, 0);
    assert_eq!(&bytes[..12], b"l\x01\0\x01\0\0\0\0\x01\0\0\0");
    assert_eq!(&bytes[16..24], b"\x01\x01o\0\x15\0\0\0");
    let parsed = parse(&bytes).unwrap();
    assert_eq!((parsed.reply_to, parsed.error), (0, None));
}

#[test]
fn addresses() {
    assert_eq!(socket_of(DEFAULT_BUS).unwrap(), Path::new("/var/run/dbus/system_bus_socket"));
    assert_eq!(socket_of("tcp:host=x;unix:abstract=/a;unix:guid=1,path=/b").unwrap(), Path::new("/b"));
    for none in ["", "unix:", "unix:path=relative", "autolaunch:"] {
        assert_eq!(socket_of(none), None, "{none}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn a_damaged_message_is_a_message_or_refused(at in 0_usize..400, to in any::<u8>(), cut in 0_usize..400, big in any::<bool>()) {
        let mut bytes = reply(!big, 3, "v", &[Value::Signature("s"), Value::Text("nginx.service")]);
        let intact = parse(&bytes).unwrap();
        prop_assert_eq!(intact.text_variant().unwrap(), "nginx.service");
        if let Some(byte) = bytes.get_mut(at) {
            *byte = to;
        }
        bytes.truncate(cut.max(1));
        if let Ok(message) = parse(&bytes) {
            let _ = (message.object_path(), message.text_variant(), message.text());
        }
    }
}
