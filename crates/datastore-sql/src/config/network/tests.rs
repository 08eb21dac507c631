use std::time::Duration;

use super::*;

fn postgres(text: &str) -> Result<Server, OpenError> {
    NetworkConfig::new(ServerKind::Postgres, text).primary()
}

fn mysql(text: &str) -> Result<Server, OpenError> {
    NetworkConfig::new(ServerKind::MySql, text).primary()
}

#[test]
fn postgres_strings() {
    let cases = [
        ("host=db port=6000 user=u dbname=d", "postgres db:6000", "d"),
        ("host = db  user='a b' dbname='it\\'s'", "postgres db:5432", "it's"),
        ("user=u host=/run/pg", "postgres /run/pg:5432", "u"),
        ("postgres://u:p%40w@db:6000/d?sslmode=disable", "postgres db:6000", "d"),
        ("postgresql://u@[::1]:6000/d", "postgres ::1:6000", "d"),
        ("host=a,b port=1,2 user=u dbname=d target_session_attrs=read-write", "postgres a:1,b:2", "d"),
        ("postgres://u@a:1,b:2/d", "postgres a:1,b:2", "d"),
    ];
    for (text, place, database) in cases {
        let server = postgres(text).unwrap();
        let Server::Postgres { hosts, .. } = &server else { panic!("{text}") };
        let socket = hosts[0].get_socket().map(|socket| socket.display().to_string());
        match socket {
            Some(socket) => assert!(place.contains(&socket), "{text}"),
            None => assert_eq!(server.place(), place, "{text}"),
        }
        assert_eq!(hosts[0].get_database(), Some(database), "{text}");
    }
}

#[test]
fn mysql_strings() {
    let server = mysql("u:p@w:x@tcp(db:6000)/spire?parseTime=true&timeout=5s").unwrap();
    assert_eq!(server.place(), "mysql db:6000");
    let Server::MySql { options, patience, .. } = &server else { panic!() };
    assert_eq!((options.get_username(), options.get_database()), ("u", Some("spire")));
    assert_eq!(*patience, Duration::from_secs(5));
    assert_eq!(mysql("u@unix(/run/m.sock)/d?parseTime=1").unwrap().place(), "mysql /run/m.sock");
    assert_eq!(mysql("u@/d?parseTime=true").unwrap().place(), "mysql 127.0.0.1:3306");
    assert_eq!(mysql("u@tcp([::1])/d?parseTime=true&tls=skip-verify").unwrap().place(), "mysql ::1:3306");
}

#[test]
fn refusals_name_what_is_wrong_and_no_password() {
    let cases = [
        (mysql(""), "datastore-sql: connection_string must be set"),
        (
            mysql("u:secret@tcp(db)/d"),
            "datastore-sql: invalid mysql config: missing parseTime=true param in connection_string",
        ),
        (
            mysql("u:secret@tcp(db)"),
            "datastore-sql: invalid DSN: missing the slash separating the database name",
        ),
        (
            mysql("u:secret@tcp(db/d?parseTime=true"),
            "datastore-sql: invalid DSN: network address not terminated (missing closing brace)",
        ),
        (
            mysql("u:secret@/d?parseTime=true&loc=Local"),
            "datastore-sql: connection_string parameter loc is \"Local\", expected UTC",
        ),
        (
            mysql("u:secret@/d?parseTime=true&x=1"),
            "datastore-sql: connection_string has parameter \"x\", which is not supported; remove it",
        ),
        (
            postgres("host=db sslmode=maybe password=secret"),
            "datastore-sql: connection_string parameter sslmode is \"maybe\", expected disable, allow, prefer, \
             require, verify-ca or verify-full",
        ),
        (postgres("secret"), "datastore-sql: connection_string of postgres is not a list of key=value"),
        (
            postgres("password='secret"),
            "datastore-sql: connection_string of postgres has an unterminated quote",
        ),
        (postgres("host=a,b port=1,2,3"), "datastore-sql: connection_string has 2 hosts and 3 ports"),
    ];
    for (result, message) in cases {
        assert_eq!(result.err().unwrap().to_string(), message);
    }
    let mut config = NetworkConfig::new(ServerKind::MySql, "u:secret@/d?parseTime=true");
    assert!(!format!("{config:?}").contains("secret"));
    config.root_ca_path = Some("/nowhere".into());
    assert_eq!(
        config.check().unwrap_err().to_string(),
        "datastore-sql: invalid mysql config: cannot find Root CA defined in root_ca_path"
    );
}
