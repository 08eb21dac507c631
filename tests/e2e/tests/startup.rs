//! Configurations and surroundings that a server or agent must refuse, saying what, where and what to do.
#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use steeple_e2e::{Daemon, Database, Deployment, Subject, chosen_engine};

/// Runs the daemon on a changed configuration; it must end, non-zero, and its output hold every one of `says`.
fn refuses(program: &str, change: impl Fn(String) -> String, says: &[&str]) -> Result<()> {
    let mut d = Deployment::builder().prepare()?;
    let steeple = d.subject_of(program) == Subject::Steeple;
    if program == "spire-agent" {
        d.start_server()?;
    }
    let name = if program == "spire-server" { "server.conf" } else { "agent.conf" };
    let config = change(std::fs::read_to_string(d.path(name))?);
    std::fs::write(d.path(name), &config)?;
    let path = d.path(name).to_string_lossy().into_owned();
    let mut daemon = Daemon::start(&d.program(program), &["run", "-config", &path], &d.path("refused.log"))?;
    let status = match daemon.wait(Duration::from_secs(10)) {
        // docs/differences.md: SPIRE's agent tries a port that cannot be for a minute.
        Err(_) if !steeple => return Ok(()),
        ended => ended.with_context(|| config.clone())?,
    };
    let log = daemon.log();
    assert!(!status.success(), "{config}\n{log}");
    assert!(!log.contains("panicked"), "{log}");
    if steeple {
        for text in says {
            assert!(log.contains(text), "does not say {text:?}:\n{log}\n{config}");
        }
    }
    Ok(())
}

#[test]
fn unknown_keys_of_the_server_are_named_with_file_and_line() -> Result<()> {
    let insert = |after: &'static str, line: &'static str| {
        move |c: String| c.replacen(after, &format!("{after}\n{line}"), 1)
    };
    refuses("spire-server", |c| format!("nonsense = 1\n{c}"), &["nonsense", "server.conf:1"])?;
    refuses("spire-server", insert("server {", "bogus_key = true"), &["bogus_key", "server.conf:2"])?;
    refuses(
        "spire-server",
        insert("server {", "ca_subject { bogus_subject = \"x\" }"),
        &["bogus_subject", "server.conf:2"],
    )?;
    refuses(
        "spire-server",
        |c| c.replace("attestation = false", "attestation = false bogus_limit = 1"),
        &["bogus_limit"],
    )?;
    refuses("spire-server", |c| format!("{c}\nhealth_checks {{ bogus_check = 1 }}"), &["bogus_check"])?;
    refuses(
        "spire-server",
        |c| format!("{c}\ntelemetry {{ Prometheus {{ bogus_metric = 1 }} }}"),
        &["bogus_metric"],
    )
}

#[test]
fn unknown_keys_of_the_agent_are_named_with_file_and_line() -> Result<()> {
    refuses("spire-agent", |c| format!("nonsense = 1\n{c}"), &["nonsense", "agent.conf:1"])?;
    refuses(
        "spire-agent",
        |c| c.replacen("agent {", "agent {\nbogus_key = true", 1),
        &["bogus_key", "agent.conf:2"],
    )?;
    refuses("spire-agent", |c| format!("{c}\nhealth_checks {{ bogus_check = 1 }}"), &["bogus_check"])
}

#[test]
fn wrong_values_of_the_server_are_refused() -> Result<()> {
    refuses(
        "spire-server",
        |c| c.replacen("server {", "server {\naudit_log_enabled = \"perhaps\"", 1),
        &["audit_log_enabled"],
    )?;
    refuses(
        "spire-server",
        |c| c.replacen("server {", "server {\nca_ttl = \"soon\"", 1),
        &["ca_ttl", "soon"],
    )?;
    refuses("spire-server", |c| c.replacen("bind_port = \"", "bind_port = \"9", 1), &["bind_port"])?;
    refuses("spire-server", |c| c.replace("trust_domain = \"example.org\"", ""), &["trust_domain"])?;
    refuses(
        "spire-server",
        |c| c.replace("trust_domain = \"example.org\"", "trust_domain = \"Not A Domain\""),
        &["trust_domain"],
    )?;
    refuses("spire-server", |c| c.replace("log_level = \"DEBUG\"", "log_level = \"LOUD\""), &["LOUD"])?;
    refuses("spire-server", |c| c.replacen("plugins {", "plugins {\nBogus \"x\" {}", 1), &["Bogus"])?;
    refuses("spire-server", |c| c.replace("database_type = \"", "database_type = \"oracle"), &["oracle"])?;
    refuses("spire-server", |c| c.replacen("server {", "server {{{", 1), &["server.conf:1"])
}

#[test]
fn wrong_values_of_the_agent_are_refused() -> Result<()> {
    refuses("spire-agent", |c| c.replace("trust_domain = \"example.org\"", ""), &["trust_domain"])?;
    refuses("spire-agent", |c| c.replacen("server_port = \"", "server_port = \"9", 1), &["server_port"])?;
    refuses("spire-agent", |c| c.replacen("trust_bundle_path", "# trust_bundle_path", 1), &["trust_bundle"])?;
    refuses("spire-agent", |c| c.replace("bundle.pem", "no-such-file.pem"), &["no-such-file.pem"])?;
    refuses("spire-agent", |c| c.replacen("admin/admin.sock", "public/admin.sock", 1), &["admin_socket_path"])
}

#[test]
fn a_data_directory_that_cannot_be_written_is_refused() -> Result<()> {
    // A file where the directory should be: holds for root too.
    refuses("spire-server", |c| c.replace("/server\"\n", "/server.conf/below\"\n"), &["server.conf/below"])
}

#[test]
fn an_option_of_spire_that_is_not_served_is_refused_by_name() -> Result<()> {
    let d = Deployment::builder().prepare()?;
    if d.subject_of("spire-agent") == Subject::Steeple {
        refuses(
            "spire-agent",
            |c| c.replace("WorkloadAttestor \"unix\"", "WorkloadAttestor \"k8s\""),
            &["k8s"],
        )?;
    }
    if d.subject_of("spire-server") == Subject::Spire {
        return Ok(());
    }
    refuses(
        "spire-server",
        |c| c.replacen("plugins {", "plugins {\nUpstreamAuthority \"vault\" { plugin_data {} }", 1),
        &["UpstreamAuthority"],
    )?;
    refuses(
        "spire-server",
        |c| c.replacen("plugins {", "plugins {\nNodeAttestor \"k8s_psat\" { plugin_data {} }", 1),
        &["k8s_psat"],
    )
}

#[test]
fn a_socket_in_use_is_refused_and_a_stale_one_replaced() -> Result<()> {
    let mut d = Deployment::builder().prepare()?;
    if d.subject_of("spire-server") == Subject::Spire {
        return Ok(()); // docs/differences.md: SPIRE removes a live socket
    }
    let live = UnixListener::bind(d.server_socket())?;
    let config = d.path("server.conf").to_string_lossy().into_owned();
    let mut refused =
        Daemon::start(&d.program("spire-server"), &["run", "-config", &config], &d.path("refused.log"))?;
    assert!(!refused.wait(Duration::from_secs(10))?.success());
    let log = refused.log();
    assert!(log.contains("server.sock") && log.contains("in use"), "{log}");
    drop(live); // the file stays: stale
    assert!(d.server_socket().exists());
    d.start_server()?;
    std::fs::remove_file(d.workload_socket()).ok();
    drop(UnixListener::bind(d.workload_socket())?);
    d.start_agent()
}

#[test]
fn two_servers_on_one_database_are_safe() -> Result<()> {
    let database = Arc::new(Database::new(chosen_engine()?)?);
    let d = Deployment::builder().disk_keys().database(&database).start()?;
    let mut second = Deployment::builder().disk_keys().database(&database).prepare()?;
    let spire = d.subject_of("spire-server") == Subject::Spire;
    let create = |one: &Deployment, n: i32| {
        let (id, path) = (format!("{}-{n}", one.port()), format!("/{}/{n}", one.port()));
        let mut created = one.entry(&id, &path, "unix:uid:1", &[]);
        // docs/differences.md: SPIRE refuses some writes with "database is locked".
        for _ in 0..20 {
            if !spire
                || !created.as_ref().is_err_and(|error| error.to_string().contains("database is locked"))
            {
                break;
            }
            created = one.entry(&id, &path, "unix:uid:1", &[]);
        }
        created
    };
    // Either it is refused, or both go on and lose nothing.
    if second.start_server().is_ok() {
        std::thread::scope(|scope| -> Result<()> {
            let writers = [&d, &second]
                .map(|one| scope.spawn(move || (0..20).map(|n| create(one, n)).collect::<Result<Vec<_>>>()));
            for writer in writers {
                writer.join().expect("writer")?;
            }
            Ok(())
        })?;
        for one in [&d, &second] {
            one.eventually("both see all entries", Duration::from_secs(10), || {
                one.server(&["entry", "count"]).stdout.starts_with("40 ")
            })?;
        }
    }
    drop(second);
    assert!(d.server_ok(&["entry", "count"])?.ends_with("registration entries\n"));
    Ok(())
}

#[test]
fn environment_is_expanded_only_when_asked() -> Result<()> {
    let mut d = Deployment::builder().prepare()?;
    let config =
        std::fs::read_to_string(d.path("server.conf"))?.replace("example.org", "${E2E_TRUST_DOMAIN}");
    let mut file = std::fs::File::create(d.path("server.conf"))?;
    file.write_all(config.as_bytes())?;
    assert!(d.start_server().is_err(), "a literal ${{}} is no trust domain");
    let config = d.path("server.conf");
    let asked = std::process::Command::new(d.program("spire-server"))
        .args(["validate", "-expandEnv", "-config"])
        .arg(&config)
        .env("E2E_TRUST_DOMAIN", "example.org")
        .output()?;
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    Ok(())
}
