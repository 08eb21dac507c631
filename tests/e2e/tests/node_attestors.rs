//! Agents that prove themselves with what their node has: a certificate, a host key, a name. Runs on any mix of ours and
//! SPIRE's programs (`STEEPLE_BIN_DIR` may hold one of each): the messages between them are SPIRE's.
#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use steeple_e2e::{Daemon, Deployment, Subject};

/// One node attestor: what both configurations say, the agent it makes, and whether that may attest again.
struct Case {
    name: &'static str,
    server: String,
    agent: String,
    path: String,
    selectors: Vec<String>,
    again: bool,
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let ran = Command::new(program).args(args).output().with_context(|| program.to_owned())?;
    if !ran.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&ran.stderr));
    }
    Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

fn openssl(args: &[&str]) -> Result<String> {
    run("openssl", args)
}

fn at(dir: &Path, name: &str) -> String {
    dir.join(name).to_string_lossy().into_owned()
}

/// A CA, an intermediate below it, and a node's certificate below that.
fn pki(dir: &Path, algorithm: &[&str]) -> Result<()> {
    let f = |name: &str| at(dir, name);
    let extensions = "[ca]\nbasicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n\
        [leaf]\nkeyUsage=critical,digitalSignature\nsubjectAltName=URI:x509pop://example.org/zone/eu/1\n";
    std::fs::write(dir.join("ext"), extensions)?;
    for name in ["ca", "middle", "node"] {
        openssl(&[&["genpkey", "-out", &f(&format!("{name}.key"))], algorithm].concat())?;
        let (key, csr) = (f(&format!("{name}.key")), f(&format!("{name}.csr")));
        openssl(&["req", "-new", "-key", &key, "-subj", &format!("/CN={name}"), "-out", &csr])?;
    }
    for (name, by, section) in [("ca", "", "ca"), ("middle", "ca", "ca"), ("node", "middle", "leaf")] {
        let (csr, out, ext) = (f(&format!("{name}.csr")), f(&format!("{name}.pem")), f("ext"));
        let mut args = vec!["x509", "-req", "-in", &csr, "-days", "2", "-out", &out, "-extfile", &ext];
        args.extend(["-extensions", section, "-set_serial", "0x0abc"]);
        let (key, by_key, by) = (f("ca.key"), f(&format!("{by}.key")), f(&format!("{by}.pem")));
        if name == "ca" {
            args.extend(["-signkey", &key]);
        } else {
            args.extend(["-CA", &by, "-CAkey", &by_key]);
        }
        openssl(&args)?;
    }
    Ok(())
}

fn sha1_of(dir: &Path, name: &str) -> Result<String> {
    let printed = openssl(&["x509", "-in", &at(dir, name), "-noout", "-fingerprint", "-sha1"])?;
    let digits = printed.split_once('=').context("no fingerprint")?.1;
    Ok(digits.replace(':', "").to_lowercase())
}

fn x509pop(dir: &Path, algorithm: &[&str]) -> Result<Case> {
    pki(dir, algorithm)?;
    let f = |name: &str| at(dir, name);
    Ok(Case {
        name: "x509pop",
        server: format!("ca_bundle_path = \"{}\"", f("ca.pem")),
        agent: format!(
            "private_key_path = \"{}\" certificate_path = \"{}\" intermediates_path = \"{}\"",
            f("node.key"),
            f("node.pem"),
            f("middle.pem")
        ),
        path: format!("/spire/agent/x509pop/{}", sha1_of(dir, "node.pem")?),
        selectors: vec![
            "subject:cn:node".into(),
            format!("ca:fingerprint:{}", sha1_of(dir, "middle.pem")?),
            format!("ca:fingerprint:{}", sha1_of(dir, "ca.pem")?),
            "serialnumber:0abc".into(),
            "san:zone:eu/1".into(),
        ],
        again: true,
    })
}

fn sshpop(dir: &Path, kind: &str, bits: &str) -> Result<Case> {
    let f = |name: &str| at(dir, name);
    for name in ["ssh_ca", "host"] {
        run("ssh-keygen", &["-q", "-t", kind, "-b", bits, "-N", "", "-f", &f(name)])?;
    }
    run(
        "ssh-keygen",
        &["-q", "-s", &f("ssh_ca"), "-h", "-I", "id", "-n", "node-1.example.org", &f("host.pub")],
    )?;
    Ok(Case {
        name: "sshpop",
        server: format!(
            "cert_authorities_path = \"{}\" canonical_domain = \"example.org\" \
             agent_path_template = \"/{{{{ .PluginName }}}}/{{{{ .Hostname | upper }}}}\"",
            f("ssh_ca.pub")
        ),
        agent: format!("host_key_path = \"{}\" host_cert_path = \"{}\"", f("host"), f("host-cert.pub")),
        path: "/spire/agent/sshpop/NODE-1".into(),
        selectors: Vec::new(),
        again: true,
    })
}

fn http_challenge() -> Case {
    Case {
        name: "http_challenge",
        server: "allowed_dns_patterns = [\"^127\\\\.0\\\\.0\\\\.1$\"]".into(),
        agent: "hostname = \"127.0.0.1\" agentname = \"rack7\"".into(),
        path: "/spire/agent/http_challenge/127.0.0.1".into(),
        selectors: vec!["hostname:127.0.0.1".into()],
        again: false,
    }
}

const JOIN_TOKEN: &str = "NodeAttestor \"join_token\" { plugin_data {} }";

/// Writes both configurations with the attestor in place of join_token (the server keeps that one, too).
fn configure(d: &Deployment, case: &Case) -> Result<()> {
    for (file, data, keep) in [("server.conf", &case.server, JOIN_TOKEN), ("agent.conf", &case.agent, "")] {
        let config = std::fs::read_to_string(d.path(file))?;
        let block = format!("{keep}\n  NodeAttestor \"{}\" {{ plugin_data {{ {data} }} }}", case.name);
        std::fs::write(d.path(file), config.replace(JOIN_TOKEN, &block))?;
    }
    Ok(())
}

fn agents(d: &Deployment) -> Result<Vec<Value>> {
    let listed: Value = serde_json::from_str(&d.server_ok(&["agent", "list", "-output", "json"])?)?;
    Ok(listed["agents"].as_array().cloned().unwrap_or_default())
}

fn forget_everything(d: &Deployment) -> Result<()> {
    std::fs::remove_dir_all(d.path("agent"))?;
    Ok(std::fs::create_dir(d.path("agent"))?)
}

fn goes_through(case: &Case) -> Result<()> {
    // As SPIRE's agent, ours ends when it is refused.
    let exits = "experimental { recover_in_process = false }";
    let mut d = Deployment::builder().disk_keys().agent_options(exits).prepare()?;
    configure(&d, case)?;
    d.start_server()?;
    d.start_agent_with(&[])?;
    let found = agents(&d)?;
    let [agent] = found.as_slice() else { bail!("{found:?}") };
    assert_eq!(agent["id"]["path"], case.path.as_str());
    assert_eq!(agent["attestation_type"], case.name);
    assert_eq!(agent["can_reattest"].as_bool().unwrap_or(false), case.again, "{agent}");
    let selectors: Vec<String> = agent["selectors"].as_array().map_or(Vec::new(), |selectors| {
        selectors.iter().filter_map(|s| s["value"].as_str().map(ToOwned::to_owned)).collect()
    });
    let (mut got, mut want) = (selectors, case.selectors.clone());
    got.sort();
    want.sort();
    assert_eq!(got, want);

    // A node that lost its data.
    let serial = agent["x509svid_serial_number"].clone();
    d.agent.take().context("no agent")?.terminate()?;
    forget_everything(&d)?;
    if case.again {
        d.start_agent_with(&[])?;
        let found = agents(&d)?;
        assert_eq!(found.len(), 1, "the same agent: {found:?}");
        assert_ne!(found[0]["x509svid_serial_number"], serial, "attested again");
        d.agent.take().context("no agent")?.terminate()?;
    } else {
        let log = must_end(&d)?;
        assert!(log.contains("attestation data has already been used to attest an agent"), "{log}");
    }

    // A ban holds whatever the node proves.
    let id = format!("spiffe://example.org{}", case.path);
    d.server_ok(&["agent", "ban", "-spiffeID", &id])?;
    forget_everything(&d)?;
    let log = must_end(&d)?;
    assert!(log.contains("banned") || log.contains("already been used"), "{log}");
    // Evicted, it may begin anew.
    d.server_ok(&["agent", "evict", "-spiffeID", &id])?;
    forget_everything(&d)?;
    d.start_agent_with(&[])?;
    Ok(())
}

fn must_end(d: &Deployment) -> Result<String> {
    let mut agent = d.spawn_agent(&[])?;
    let status = agent.wait(Duration::from_secs(75))?;
    assert!(!status.success(), "{}", agent.log());
    Ok(agent.log())
}

#[test]
fn x509pop_with_an_ec_key() -> Result<()> {
    let dir = tempfile::tempdir()?;
    goes_through(&x509pop(dir.path(), &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"])?)
}

#[test]
fn x509pop_with_an_rsa_key() -> Result<()> {
    let dir = tempfile::tempdir()?;
    goes_through(&x509pop(dir.path(), &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])?)
}

#[test]
fn sshpop_with_an_rsa_key() -> Result<()> {
    let dir = tempfile::tempdir()?;
    goes_through(&sshpop(dir.path(), "rsa", "2048")?)
}

#[test]
fn sshpop_with_other_keys() -> Result<()> {
    for (kind, bits) in [("ed25519", "256"), ("ecdsa", "521")] {
        let dir = tempfile::tempdir()?;
        goes_through(&sshpop(dir.path(), kind, bits)?)?;
    }
    Ok(())
}

#[test]
fn http_challenge_by_name() -> Result<()> {
    goes_through(&http_challenge())
}

#[test]
fn a_certificate_of_another_ca_is_refused() -> Result<()> {
    let (mine, theirs) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let algorithm = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let case = x509pop(mine.path(), &algorithm)?;
    let stranger = x509pop(theirs.path(), &algorithm)?;
    let mut d = Deployment::builder().prepare()?;
    configure(&d, &Case { agent: stranger.agent, ..case })?;
    d.start_server()?;
    let log = must_end(&d)?;
    assert!(log.contains("certificate verification failed"), "{log}");
    assert!(agents(&d)?.is_empty());
    Ok(())
}

/// An agent that can attest again does so instead of renewing, while it serves.
#[test]
fn an_agent_attests_again_before_its_svid_ends() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let case = sshpop(dir.path(), "ed25519", "256")?;
    let mut d = Deployment::builder().server_options("agent_ttl = \"30s\"").prepare()?;
    configure(&d, &case)?;
    d.start_server()?;
    d.start_agent_with(&[])?;
    let serial = || Ok::<_, anyhow::Error>(agents(&d)?[0]["x509svid_serial_number"].clone());
    let first = serial()?;
    d.eventually("another SVID", Duration::from_secs(40), || serial().is_ok_and(|now| now != first))?;
    let log = d.server.as_ref().context("no server")?.log();
    assert!(log.matches("Agent attestation request completed").count() >= 2, "{log}");
    Ok(())
}

/// An SVID that one agent serves makes another agent.
#[test]
fn an_svid_is_exchanged_for_an_agent() -> Result<()> {
    let mut d = Deployment::builder().disk_keys().prepare()?;
    let config = std::fs::read_to_string(d.path("server.conf"))?;
    let block = format!("{JOIN_TOKEN}\n  NodeAttestor \"x509pop\" {{ plugin_data {{ mode = \"spiffe\" }} }}");
    std::fs::write(d.path("server.conf"), config.replace(JOIN_TOKEN, &block))?;
    d.start_server()?;
    d.start_agent()?;
    d.entry_for_me("exchange", "/spire-exchange/rack/7")?;
    d.eventually("the SVID to exchange", Duration::from_secs(30), || {
        d.agent_api(&["api", "fetch", "x509"]).stdout.contains("/spire-exchange/rack/7")
    })?;
    let config = std::fs::read_to_string(d.path("agent.conf"))?;
    let exchange = format!(
        "NodeAttestor \"x509pop\" {{ plugin_data {{ spiffe_endpoint_socket = \"unix://{}\" }} }}",
        d.workload_socket().display()
    );
    let second = config
        .replace(JOIN_TOKEN, &exchange)
        .replace("/public/api.sock", "/second/api.sock")
        .replace("/admin/admin.sock", "/second-admin/admin.sock")
        .replace("/agent\"", "/second-data\"");
    // The exchange itself names the first agent's socket.
    let second = second.replace(
        &format!("unix://{}", d.path("second/api.sock").display()),
        &format!("unix://{}", d.workload_socket().display()),
    );
    for name in ["second", "second-admin", "second-data"] {
        std::fs::create_dir(d.path(name))?;
    }
    std::fs::write(d.path("second.conf"), second)?;
    let conf = d.path("second.conf").to_string_lossy().into_owned();
    let mut agent =
        Daemon::start(&d.program("spire-agent"), &["run", "-config", &conf], &d.path("second.log"))?;
    let up = d.eventually("the second agent", Duration::from_secs(30), || {
        agents(&d)
            .is_ok_and(|found| found.iter().any(|agent| agent["id"]["path"] == "/spire/agent/x509pop/rack/7"))
    });
    up.with_context(|| agent.log())?;
    agent.kill();
    Ok(())
}

/// Ours alone: SPIRE finds an unknown function, but an unknown field only when an agent comes, and names neither.
#[test]
fn a_template_that_cannot_work_is_refused_at_start() -> Result<()> {
    let d = Deployment::builder().prepare()?;
    if d.subject_of("spire-server") != Subject::Steeple {
        return Ok(());
    }
    for (template, names) in
        [("/{{ .Nope }}", "Nope"), ("/{{ nofunction }}", "nofunction"), ("/{{ uuidv4 }}", "uuidv4")]
    {
        let config = std::fs::read_to_string(d.path("server.conf"))?;
        let data = format!("mode = \"spiffe\" agent_path_template = \"{template}\"");
        let block = format!("NodeAttestor \"x509pop\" {{ plugin_data {{ {data} }} }}");
        std::fs::write(d.path("bad.conf"), config.replace(JOIN_TOKEN, &block))?;
        let ran = d.run("spire-server", &["validate", "-config", &d.path("bad.conf").to_string_lossy()]);
        assert_ne!(ran.code, Some(0), "{ran:?}");
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains(names), "{ran:?}");
    }
    Ok(())
}
