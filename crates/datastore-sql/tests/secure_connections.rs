//! TLS to database servers, with and without client certificates, Unix sockets, and passwords that plain TCP does not carry.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: panicking is how it fails")]

mod support;

use std::path::Path;

use steeple_databases::{Database, Engine, Server};
use steeple_datastore::{Datastore, EntryFilter};
use steeple_datastore_sql::{DatabaseConfig, NetworkConfig, ServerKind};
use support::{open, try_open};

const USER: &str = Server::USER;
const PASSWORD: &str = Server::PASSWORD;

fn network(kind: ServerKind, connection_string: String) -> NetworkConfig {
    NetworkConfig::new(kind, connection_string)
}

/// Opens it and asks something.
async fn works(config: NetworkConfig) {
    let store = open(&DatabaseConfig::Network(config)).await;
    assert_eq!(store.count_entries(&EntryFilter::default()).await.unwrap(), 0);
    store.close().await;
}

/// The operator reads the reason, and no password.
async fn refused(config: NetworkConfig) -> String {
    let refusal = try_open(&DatabaseConfig::Network(config)).await.map(drop).unwrap_err();
    assert!(!refusal.contains(PASSWORD), "{refusal}");
    refusal
}

#[tokio::test]
async fn tls_to_postgres() {
    let database = Database::alone(Engine::Postgres).unwrap();
    let server = database.server().unwrap();
    let (name, port, tls) = (database.name(), server.port(), server.tls());
    let only = |rule: &str| {
        let dir = server.query("postgres", "SHOW data_directory").unwrap();
        let rules = format!("local all all trust\n{rule}\n");
        std::fs::write(Path::new(dir.trim()).join("pg_hba.conf"), rules).unwrap();
        server.query("postgres", "SELECT pg_reload_conf(), pg_sleep(0.5)").unwrap();
    };
    let string = |mode: &str, ca: &Path| {
        let base = format!("host=127.0.0.1 port={port} dbname={name} user={USER} sslmode={mode}");
        format!("{base} sslrootcert={}", ca.display())
    };
    let postgres = |more: String| network(ServerKind::Postgres, more);
    let with_password = |text: String| postgres(format!("{text} password={PASSWORD}"));

    only("hostssl all all 127.0.0.1/32 scram-sha-256");
    let plain = refused(with_password(string("disable", &tls.ca))).await;
    assert!(plain.contains("no encryption"), "{plain}");
    for mode in ["require", "verify-ca", "verify-full"] {
        works(with_password(string(mode, &tls.ca))).await;
        let refusal = refused(with_password(string(mode, &tls.other_ca))).await;
        assert!(refusal.contains("not trusted: UnknownIssuer; the authority"), "{mode}: {refusal}");
    }
    let missing = refused(with_password(string("verify-full", Path::new("/nowhere.pem")))).await;
    assert!(missing.contains("sslrootcert \"/nowhere.pem\" cannot be read: No such file"), "{missing}");

    only("hostssl all all 127.0.0.1/32 cert");
    let without = refused(postgres(string("verify-full", &tls.ca))).await;
    assert!(without.contains("certificate"), "{without}");
    let (client, key) = (tls.client.display(), tls.client_key.display());
    let string = string("verify-full", &tls.ca);
    works(postgres(format!("{string} sslcert={client} sslkey={key}"))).await;
}

#[tokio::test]
async fn tls_to_mariadb() {
    let database = Database::alone(Engine::MariaDb).unwrap();
    let server = database.server().unwrap();
    let tls = server.tls();
    let require = |what: &str| {
        for host in ["127.0.0.1", "localhost"] {
            database.query(&format!("ALTER USER '{USER}'@'{host}' REQUIRE {what}")).unwrap();
        }
    };
    let plain = network(ServerKind::MySql, database.connection_string());
    let with_ca = |ca: &Path| NetworkConfig { root_ca_path: Some(ca.into()), ..plain.clone() };
    let param = |tls: &str| network(ServerKind::MySql, format!("{}&tls={tls}", database.connection_string()));

    require("SSL");
    let refusal = refused(param("false")).await;
    assert!(refusal.contains("Access denied"), "{refusal}");
    works(with_ca(&tls.ca)).await;
    works(param("skip-verify")).await;
    works(param("preferred")).await;
    for untrusted in [with_ca(&tls.other_ca), param("true")] {
        let refusal = refused(untrusted).await;
        assert!(refusal.contains("not trusted: UnknownIssuer; the authority"), "{refusal}");
    }

    require("X509");
    let refusal = refused(with_ca(&tls.ca)).await;
    assert!(refusal.contains("Access denied"), "{refusal}");
    works(NetworkConfig {
        client_cert_path: Some(tls.client.clone()),
        client_key_path: Some(tls.client_key.clone()),
        ..with_ca(&tls.ca)
    })
    .await;
}

#[tokio::test]
async fn unix_sockets() {
    for engine in [Engine::Postgres, Engine::MariaDb] {
        let database = Database::new(engine).unwrap();
        let (name, server) = (database.name(), database.server().unwrap());
        works(if engine == Engine::Postgres {
            let dir = server.query("postgres", "SHOW unix_socket_directories").unwrap();
            let (dir, port) = (dir.trim(), server.port());
            let text = format!("host={dir} port={port} dbname={name} user={USER} sslmode=disable");
            network(ServerKind::Postgres, text)
        } else {
            let socket = server.query("", "SELECT @@socket").unwrap();
            let text = format!("{USER}:{PASSWORD}@unix({})/{name}?parseTime=true", socket.trim());
            network(ServerKind::MySql, text)
        })
        .await;
    }
}

/// MySQL 8's default passwords go over TLS only; whoever has none reads what to do.
#[tokio::test]
async fn caching_sha2_passwords_without_tls() {
    let database = Database::alone(Engine::MySql).unwrap();
    let socket = database.query("SELECT @@socket").unwrap();
    let by_socket = format!("{USER}:{PASSWORD}@unix({})/{}?parseTime=true", socket.trim(), database.name());
    for text in [database.connection_string(), by_socket.clone()] {
        let refusal = refused(network(ServerKind::MySql, text)).await;
        for part in ["caching_sha2_password", "tls=", "root_ca_path", "mysql_native_password"] {
            assert!(refusal.contains(part), "{refusal}");
        }
    }
    // What it tells to do.
    for host in ["127.0.0.1", "localhost"] {
        let native = format!("IDENTIFIED WITH mysql_native_password BY '{PASSWORD}'");
        database.query(&format!("ALTER USER '{USER}'@'{host}' {native}")).unwrap();
    }
    for text in [database.connection_string(), by_socket] {
        works(network(ServerKind::MySql, text)).await;
    }
}
