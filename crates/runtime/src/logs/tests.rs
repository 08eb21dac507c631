use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use tracing_subscriber::layer::SubscriberExt;

use super::*;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
    }
}

/// What `log` writes under `config`, with the time replaced.
fn written(config: &LogConfig, log: impl FnOnce(&LogHandle)) -> Vec<String> {
    let buffer = Buffer::default();
    let (layer, handle) = build(config, Sink::to(Box::new(buffer.clone())));
    tracing::subscriber::with_default(Registry::default().with(layer), || {
        // Another test's subscriber may have been asked about these places before.
        tracing::callsite::rebuild_interest_cache();
        log(&handle);
    });
    buffer.take().lines().map(without_time).collect()
}

fn without_time(line: &str) -> String {
    let (before, rest) = line.split_once("time").unwrap();
    let start = rest.find(|c: char| c.is_ascii_digit()).unwrap();
    let end = start + rest[start..].find('"').unwrap();
    rest[start..end].parse::<jiff::Timestamp>().unwrap();
    format!("{before}time{}<time>{}", &rest[..start], &rest[end..])
}

fn config(format: LogFormat) -> LogConfig {
    LogConfig { format, level: LogLevel::Trace, ..LogConfig::default() }
}

#[test]
fn text_is_logrus_text() {
    let lines = written(&config(LogFormat::Default), |_| {
        tracing::warn!("Current umask 0022 is too permissive; setting umask 0027");
        tracing::info!(
            version = "1.16.0",
            data_dir = "/d/server",
            admin_ids = "[]",
            launch_log_level = "debug",
            "Configured"
        );
        tracing::error!(subsystem_name = "sql", error = %"no \"such\" file\n\tat\u{1}é\u{200b}", count = 3, ratio = 0.5, ok = true, empty = "", "Failed");
        tracing::info!(host = "127.0.0.1", time = 1, "x");
    });
    assert_eq!(
        lines,
        [
            r#"time="<time>" level=warning msg="Current umask 0022 is too permissive; setting umask 0027""#,
            r#"time="<time>" level=info msg=Configured admin_ids="[]" data_dir=/d/server launch_log_level=debug version=1.16.0"#,
            r#"time="<time>" level=error msg=Failed count=3 empty= error="no \"such\" file\n\tat\x01é\u200b" ok=true ratio=0.5 subsystem_name=sql"#,
            r#"time="<time>" level=info msg=x fields.time=1 host=127.0.0.1"#,
        ]
    );
}

#[test]
fn json_is_logrus_json() {
    let lines = written(&config(LogFormat::Json), |_| {
        tracing::info!(
            external = false,
            plugin_name = "join_token",
            count = 7u64,
            "Plugin <loaded> & \"ready\""
        );
    });
    assert_eq!(
        lines,
        [
            r#"{"count":7,"external":false,"level":"info","msg":"Plugin \u003cloaded\u003e \u0026 \"ready\"","plugin_name":"join_token","time":"<time>"}"#
        ]
    );
}

#[test]
fn fields_of_spans_are_inherited() {
    let lines = written(&config(LogFormat::Default), |_| {
        let outer = tracing::info_span!(
            "call",
            request_id = "r1",
            caller_id = tracing::field::Empty,
            method = "outer"
        );
        outer.record("caller_id", "me");
        let _outer = outer.entered();
        let _inner = tracing::info_span!("inner", method = "inner").entered();
        tracing::info!("hello");
    });
    assert_eq!(lines, [r#"time="<time>" level=info msg=hello caller_id=me method=inner request_id=r1"#]);
}

#[test]
fn fields_may_be_named_at_run_time() {
    let lines = written(&config(LogFormat::Default), |_| {
        let fields = r#"{"entry_id":"e1","dns_names":["a b"],"ttl":60,"admin":true}"#;
        tracing::info!(fields, "API accessed");
        tracing::info!(fields = "no object", "x");
    });
    assert_eq!(
        lines,
        [
            r#"time="<time>" level=info msg="API accessed" admin=true dns_names="[\"a b\"]" entry_id=e1 ttl=60"#,
            r#"time="<time>" level=info msg=x fields="no object""#,
        ]
    );
}

#[test]
fn levels_change_at_run_time() {
    let start = LogConfig { level: LogLevel::Warn, ..LogConfig::default() };
    let lines = written(&start, |handle| {
        let log = |text: &str| {
            tracing::debug!("debug {text}");
            tracing::info!("info {text}");
            tracing::error!("error {text}");
        };
        log("at warning");
        handle.set_level(LogLevel::Debug);
        log("at debug");
        handle.set_level(LogLevel::Fatal);
        log("at fatal");
        assert_eq!((handle.level(), handle.launch_level()), (LogLevel::Fatal, LogLevel::Warn));
        handle.reset();
        log("again");
        assert_eq!(handle.level().to_string(), "warning");
    });
    let messages: Vec<_> =
        lines.iter().map(|line| line.split("msg=").nth(1).unwrap().trim_matches('"')).collect();
    assert_eq!(
        messages,
        ["error at warning", "debug at debug", "info at debug", "error at debug", "error again"]
    );
}

#[test]
fn others_may_only_warn() {
    let lines = written(&config(LogFormat::Default), |_| {
        tracing::info!(target: "h2::codec", "chatter");
        tracing::warn!(target: "h2::codec", "trouble");
    });
    assert_eq!(lines, [r#"time="<time>" level=warning msg=trouble"#]);
}

#[test]
fn source_location() {
    let start = LogConfig { source_location: true, ..LogConfig::default() };
    let lines = written(&start, |_| tracing::info!("here"));
    let line = &lines[0];
    assert!(
        line.contains(r#" file="tests.rs:"#) && line.contains(r#" func="steeple_runtime::logs::tests""#),
        "{line}"
    );
}

#[test]
fn a_closed_output_is_survived() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let (layer, _handle) = build(&LogConfig::default(), Sink::to(Box::new(Closed)));
    tracing::subscriber::with_default(Registry::default().with(layer), || tracing::error!("into the void"));
}

#[test]
fn a_moved_file_is_reopened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let start = LogConfig { file: Some(path.clone()), ..LogConfig::default() };
    let (layer, handle) = build(&start, Sink::open(start.file.clone()).unwrap());
    tracing::subscriber::with_default(Registry::default().with(layer), || {
        tracing::callsite::rebuild_interest_cache();
        tracing::info!("first");
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        tracing::info!("second");
        handle.reopen().unwrap();
        tracing::info!("third");
    });
    assert!(handle.has_file());
    assert_eq!(std::fs::read_to_string(dir.path().join("old")).unwrap().lines().count(), 2);
    assert!(std::fs::read_to_string(&path).unwrap().contains("msg=third"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777 & !0o640, 0);
    let error = Sink::open(Some(dir.path().join("no/x.log"))).unwrap_err();
    assert!(error.to_string().contains("no/x.log"), "{error}");
}

#[test]
fn names() {
    assert_eq!("WARN".parse::<LogLevel>().unwrap(), LogLevel::Warn);
    assert_eq!("warning".parse::<LogLevel>().unwrap(), LogLevel::Warn);
    assert_eq!("Panic".parse::<LogLevel>().unwrap(), LogLevel::Panic);
    assert_eq!("nope".parse::<LogLevel>().unwrap_err().to_string(), r#"not a valid logrus Level: "nope""#);
    assert_eq!("".parse::<LogFormat>().unwrap(), LogFormat::Default);
    assert_eq!("json".parse::<LogFormat>().unwrap(), LogFormat::Json);
    assert_eq!("xml".parse::<LogFormat>().unwrap_err().to_string(), r#"unknown logger format: "xml""#);
}
