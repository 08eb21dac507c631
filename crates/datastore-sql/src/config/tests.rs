use super::*;

#[test]
fn connection_strings_of_spire() {
    // in, name, URI, in memory
    let cases = [
        ("data.db", "data.db", false, false),
        ("./data/datastore.sqlite3", "./data/datastore.sqlite3", false, false),
        ("/var/lib/spire/data.db", "/var/lib/spire/data.db", false, false),
        ("file:data.db", "file:data.db", true, false),
        ("file:/home/fred/data.db", "file:/home/fred/data.db", true, false),
        ("file:///home/fred/data.db", "file:///home/fred/data.db", true, false),
        ("file://localhost/home/fred/data.db", "file://localhost/home/fred/data.db", true, false),
        ("file:data.db?mode=ro", "file:data.db?mode=ro", true, false),
        ("data.db?mode=rw", "file:data.db?mode=rw", true, false),
        (
            "file:x?_journal_mode=WAL&_foreign_keys=ON&vfs=unix-dotfile",
            "file:x?vfs=unix-dotfile",
            true,
            false,
        ),
        ("file:x?_txlock=immediate", "file:x", true, false),
        (":memory:", ":memory:", false, true),
        ("file::memory:", "file::memory:", true, true),
        ("file:name?mode=memory&cache=shared", "file:name?mode=memory&cache=shared", true, true),
    ];
    for (text, name, is_uri, in_memory) in cases {
        let target = Target::parse(text).unwrap();
        assert_eq!(
            (target.name.as_str(), target.is_uri, target.in_memory),
            (name, is_uri, in_memory),
            "{text}"
        );
        assert_eq!(target.synchronous, Synchronous::Full);
    }
}

#[test]
fn driver_parameters() {
    let target = Target::parse("a.db?_busy_timeout=250&_sync=normal").unwrap();
    assert_eq!(target.busy_timeout, Duration::from_millis(250));
    assert_eq!(target.synchronous, Synchronous::Normal);
    assert_eq!(target.name, "a.db");
}

#[test]
fn refusals_name_what_is_wrong() {
    let cases = [
        ("", "datastore-sql: connection_string must be set"),
        ("mysql://data.db", "datastore-sql: unsupported scheme \"mysql\""),
        (
            "a?_loc=auto",
            "datastore-sql: connection_string has parameter \"_loc\", which is not supported; remove it",
        ),
        (
            "a?_sync=7",
            "datastore-sql: connection_string parameter _synchronous is \"7\", expected OFF, NORMAL, FULL or EXTRA",
        ),
        (
            "a?_timeout=soon",
            "datastore-sql: connection_string parameter _busy_timeout is \"soon\", expected milliseconds",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(Target::parse(text).unwrap_err().to_string(), message);
    }
}
