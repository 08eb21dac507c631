use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use super::*;

pub const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// An engine that answers each connection with the same bytes, whatever is asked.
pub struct Fake {
    pub engine: Engine,
    pub asked: Arc<AtomicUsize>,
    pub requests: Arc<std::sync::Mutex<Vec<String>>>,
    _dir: TempDir,
    _task: JoinSet<()>,
}

/// What the fake does with a connection after it read the request.
#[derive(Clone, Debug)]
pub enum Does {
    Says(Vec<u8>),
    /// Never answers.
    Hangs,
    /// The head, then one byte a second.
    Drips(Vec<u8>),
    /// The head, then zeros without end.
    Floods(Vec<u8>),
    ClosesAtOnce,
    /// Closes so often, then says.
    Recovers(usize, Vec<u8>),
}

pub fn fake(does: Does) -> Fake {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("engine.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let requests = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (count, log) = (asked.clone(), requests.clone());
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let (does, log) = (does.clone(), log.clone());
            connections.spawn(async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                log.lock().unwrap().push(String::from_utf8_lossy(&request[..read]).into_owned());
                let _ = match does {
                    Does::Hangs => std::future::pending().await,
                    Does::ClosesAtOnce => Ok(()),
                    Does::Recovers(after, _) if number < after => Ok(()),
                    Does::Says(bytes) | Does::Recovers(_, bytes) => stream.write_all(&bytes).await,
                    Does::Drips(head) => {
                        let _ = stream.write_all(&head).await;
                        loop {
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            if stream.write_all(b" ").await.is_err() {
                                break Ok(());
                            }
                        }
                    }
                    Does::Floods(head) => {
                        let _ = stream.write_all(&head).await;
                        let zeros = vec![b'0'; 64 * 1024];
                        while stream.write_all(&zeros).await.is_ok() {}
                        Ok(())
                    }
                };
            });
        }
    });
    let engine = Engine { socket, version: None, user: None };
    Fake { engine, asked, requests, _dir: dir, _task: task }
}

pub fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub fn container(id: &str, pid: i32) -> String {
    format!(
        r#"{{"Id":"{id}","Name":"/web","Image":"sha256:77","State":{{"Pid":{pid},"Running":true}},
        "Config":{{"Labels":{{"app":"web","a:b":"c"}},"Env":["A=1","B=x=y"],"Image":"nginx:1"}},"Mounts":[]}}"#
    )
}

async fn refused(does: Does) -> (EngineError, usize) {
    let fake = fake(does);
    let Err(error) = fake.engine.inspect(ID).await else { panic!("an answer") };
    (error, fake.asked.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_container_is_told() {
    let fake = fake(Does::Says(ok(&container(ID, 42))));
    let told = fake.engine.inspect(ID).await.ok().unwrap();
    assert_eq!(told.pid, 42);
    assert_eq!(told.labels["a:b"], "c");
    assert_eq!(told.env, ["A=1", "B=x=y"]);
    assert_eq!((told.image.as_str(), told.image_id.as_str()), ("nginx:1", "sha256:77"));
    let request = fake.requests.lock().unwrap()[0].clone();
    assert!(request.starts_with(&format!("GET /containers/{ID}/json HTTP/1.1\r\n")), "{request}");
    let versioned = Engine { version: ApiVersion::parse("v1.41"), ..fake.engine.clone() };
    assert!(versioned.inspect(ID).await.is_ok());
    let request = fake.requests.lock().unwrap()[1].clone();
    assert!(request.starts_with(&format!("GET /v1.41/containers/{ID}/json HTTP/1.1\r\n")), "{request}");
}

#[tokio::test]
async fn what_may_be_absent_is() {
    let bare = format!(r#"{{"Id":"{ID}","State":{{"Pid":1}},"Config":{{"Labels":null,"Env":null}}}}"#);
    let told = fake(Does::Says(ok(&bare))).engine.inspect(ID).await.ok().unwrap();
    assert!(told.labels.is_empty() && told.env.is_empty() && told.image.is_empty());
    // By name, as a legacy pattern may find it, or by the beginning of the ID.
    let named = fake(Does::Says(ok(&container(ID, 1))));
    assert!(named.engine.inspect("web").await.is_ok());
    assert!(named.engine.inspect(&ID[..12]).await.is_ok());
    assert!(named.engine.inspect("we").await.is_err());
}

#[tokio::test]
async fn an_engine_that_lies_is_not_believed() {
    let other = "f".repeat(64);
    let (error, asked) = refused(Does::Says(ok(&container(&other, 1)))).await;
    assert!(matches!(error, EngineError::OtherContainer { .. }), "{error}");
    assert_eq!(asked, 1);
    let (error, _) = refused(Does::Says(ok(&container(ID, 0)))).await;
    assert!(matches!(error, EngineError::NotRunning { .. }), "{error}");
    let (error, _) = refused(Does::Says(ok(&container(ID, -7)))).await;
    assert!(matches!(error, EngineError::NotRunning { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_container_is_refused_and_not_shown() {
    for body in [
        "",
        "hello",
        "null",
        "[]",
        "{}",
        "{\"Id\":7}",
        &format!("{{\"Id\":\"{ID}\"}}"),
        &format!(r#"{{"Id":"{ID}","State":{{"Pid":1}},"Config":{{"Env":"SECRET=hunter2"}}}}"#),
        &format!(r#"{{"Id":"{ID}","State":{{"Pid":99999999999999}}}}"#),
        &format!(r#"{{"Id":"{ID}","Id":"{ID}","State":{{"Pid":1}}}}"#),
        &"[".repeat(100_000),
    ] {
        let (error, asked) = refused(Does::Says(ok(body))).await;
        assert!(matches!(error, EngineError::Shape { .. }), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(asked, 1, "asking again would not help");
    }
}

#[tokio::test]
async fn other_statuses_are_refused_and_redirects_not_followed() {
    let says = |head: &str| Does::Says(format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n").into_bytes());
    let (error, asked) = refused(says("404 Not Found")).await;
    assert!(matches!(error, EngineError::NoContainer { .. }), "{error}");
    assert_eq!(asked, 1);
    for head in ["301 Moved\r\nlocation: http://127.0.0.1:1/", "403 Forbidden", "204 No Content"] {
        let (error, asked) = refused(says(head)).await;
        assert!(matches!(error, EngineError::Refused { .. }), "{error}");
        assert_eq!(asked, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_as_spire_does() {
    let (error, asked) =
        refused(Does::Says(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_vec())).await;
    assert!(matches!(error, EngineError::Refused { .. }), "{error}");
    assert_eq!(asked, 4);
    let (error, asked) = refused(Does::ClosesAtOnce).await;
    assert!(matches!(error, EngineError::Http { .. }), "{error}");
    assert_eq!(asked, 4);
    let recovering = fake(Does::Recovers(2, ok(&container(ID, 1))));
    assert!(recovering.engine.inspect(ID).await.is_ok());
    let nobody = Engine { socket: "/nonexistent/engine.sock".into(), version: None, user: None };
    assert!(matches!(nobody.inspect(ID).await, Err(EngineError::Connect { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_http_or_too_much_of_it_is_refused() {
    for garbage in [
        b"\x16\x03\x01 hello\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: ten\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH\r\n".to_vec(),
    ] {
        let (error, _) = refused(Does::Says(garbage)).await;
        assert!(matches!(error, EngineError::Http { .. }), "{error}");
    }
    let (error, _) =
        refused(Does::Floods(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n".to_vec())).await;
    assert!(matches!(error, EngineError::Body { .. }), "{error}");
    let (error, _) = refused(Does::Floods(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())).await;
    assert!(matches!(error, EngineError::Body { .. }), "{error}");
    let (error, _) = refused(Does::Floods(b"HTTP/1.1 200 OK\r\nx: ".to_vec())).await;
    assert!(matches!(error, EngineError::Http { .. }), "{error}");
    // Less than it promised.
    let (error, _) = refused(Does::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}".to_vec())).await;
    assert!(matches!(error, EngineError::Body { .. }), "{error}");
}

#[tokio::test]
async fn only_the_users_own_engine_answers_for_the_user() {
    let engine = fake(Does::Says(ok(&container(ID, 1))));
    let mine = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    assert!(Engine { user: Some(mine), ..engine.engine.clone() }.inspect(ID).await.is_ok());
    let Err(error) = (Engine { user: Some(mine + 1), ..engine.engine.clone() }).inspect(ID).await else {
        panic!("believed");
    };
    assert!(matches!(error, EngineError::OtherUser { .. }), "{error}");
}

#[test]
fn versions_are_two_numbers() {
    for good in ["1.41", "v1.24", "2.0"] {
        assert!(ApiVersion::parse(good).is_some(), "{good}");
    }
    for bad in ["", "1", "1.", ".1", "1.41.2", "1.4a", "1/41", "../1.1", "v", "12345.1"] {
        assert!(ApiVersion::parse(bad).is_none(), "{bad}");
    }
}
