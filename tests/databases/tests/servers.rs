//! The harness itself.

use steeple_databases::{Database, Engine};

#[test]
fn each_server_gives_empty_databases_that_go() {
    for engine in Engine::SERVERS {
        let database = Database::new(engine).unwrap();
        database.query("create table t (i int primary key)").unwrap();
        database.query("insert into t values (1)").unwrap();
        assert_eq!(database.query("select i from t").unwrap().trim(), "1");
        let other = Database::new(engine).unwrap();
        assert_ne!(other.name(), database.name());
        assert!(other.query("select i from t").is_err(), "{engine}: the second database is not empty");
        let server = database.server().unwrap();
        let before = server.statements().unwrap();
        assert!(server.statements().unwrap() >= before);
    }
}

#[test]
fn what_was_committed_survives_a_kill() {
    for engine in Engine::SERVERS {
        let database = Database::alone(engine).unwrap();
        database.query("create table t (i int primary key)").unwrap();
        for n in 0..20 {
            database.query(&format!("insert into t values ({n})")).unwrap();
        }
        let server = database.own_server().unwrap();
        server.kill().unwrap();
        assert!(database.query("select 1").is_err(), "{engine} answers after its death");
        server.start().unwrap();
        assert_eq!(database.query("select count(*) from t").unwrap().trim(), "20");
        server.stop().unwrap();
        server.start().unwrap();
        assert_eq!(database.query("select count(*) from t").unwrap().trim(), "20");
    }
}

#[test]
fn a_standby_takes_over() {
    let database = Database::alone(Engine::Postgres).unwrap();
    let primary = database.own_server().unwrap();
    database.query("create table t (i int)").unwrap();
    let standby = primary.standby().unwrap();
    database.query("insert into t values (1)").unwrap();
    let mut seen = String::new();
    for _ in 0..200 {
        seen = standby.query(database.name(), "select count(*), pg_is_in_recovery() from t").unwrap();
        if seen.trim() == "1|t" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    assert_eq!(seen.trim(), "1|t");
    primary.kill().unwrap();
    standby.promote().unwrap();
    let sql = "insert into t values (2); select count(*), pg_is_in_recovery() from t";
    assert_eq!(standby.query(database.name(), sql).unwrap().trim(), "2|f");
}
