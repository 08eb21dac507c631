//! Options and plugins: a small configuration with one of them, through `validate`.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use steeple_e2e::{Deployment, Subject};
use tempfile::TempDir;

use super::State;
use super::list::Row;

/// The files that options name.
pub struct Files(TempDir);

/// Lines that stand unless the option under test is one of them.
const SERVER: &[(&str, &str)] =
    &[("trust_domain", "trust_domain = \"example.org\""), ("data_dir", "data_dir = \"{dir}\"")];
const AGENT: &[(&str, &str)] = &[
    ("trust_domain", "trust_domain = \"example.org\""),
    ("server_address", "server_address = \"127.0.0.1\""),
    ("server_port", "server_port = \"8081\""),
    ("data_dir", "data_dir = \"{dir}\""),
];
/// Plugins by type, name and whether there must be exactly one of the type.
const SERVER_PLUGINS: &[(&str, &str, bool, &str)] = &[
    ("DataStore", "sql", true, "database_type = \"sqlite3\" connection_string = \"{dir}/db\""),
    ("KeyManager", "memory", true, ""),
];
const AGENT_PLUGINS: &[(&str, &str, bool, &str)] = &[
    ("NodeAttestor", "join_token", true, ""),
    ("KeyManager", "memory", true, ""),
    ("WorkloadAttestor", "unix", false, ""),
];

impl Files {
    pub fn new() -> Result<Self> {
        let files = Self(tempfile::tempdir_in("/tmp")?);
        let made = Command::new("openssl")
            .current_dir(files.0.path())
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "30",
            ])
            .args(["-subj", "/CN=compat", "-addext", "subjectAltName=URI:spiffe://example.org"])
            .args(["-keyout", "ca.key", "-out", "ca.pem"])
            .output()?;
        ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        for (from, to) in [("ca.pem", "cert.pem"), ("ca.key", "key.pem")] {
            std::fs::copy(files.0.path().join(from), files.0.path().join(to))?;
        }
        let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5ERjb7BFBpvDhMwqF4qE3eg3v2D1BGrvS5sFRiDvQZ ca\n";
        for (name, text) in [("ssh_ca.pub", ssh), ("token", "x"), ("data", "")] {
            std::fs::write(files.0.path().join(name), text)?;
        }
        Ok(files)
    }

    pub fn state(&self, d: &Deployment, row: &Row) -> Result<State> {
        let (program, text) = match row.kind.as_str() {
            "server-option" => ("spire-server", server(&row.how, &[], "")),
            "server-block" => ("spire-server", server("", &[], &row.how)),
            "server-plugin" => ("spire-server", server("", &[plugin(row)?], "")),
            "agent-option" => ("spire-agent", agent(&row.how, &[], "")),
            "agent-block" => ("spire-agent", agent("", &[], &row.how)),
            "agent-plugin" => ("spire-agent", agent("", &[plugin(row)?], "")),
            other => bail!("docs/compat.list: unknown kind {other}"),
        };
        let file = self.0.path().join("a.conf");
        std::fs::write(&file, text.replace("{dir}", &self.0.path().to_string_lossy()))?;
        let ran = Command::new(d.program(program)).arg("validate").arg("-config").arg(&file).output()?;
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        let unknown = said.contains("unknown key");
        if ran.status.success() && !unknown {
            return Ok(State::Served);
        }
        // SPIRE looks into plugins when it validates: what it complains of, it knows.
        let known =
            ["Validation errors:", "failed to launch plugin"].iter().any(|words| said.contains(words));
        if known && d.subject() == Subject::Spire {
            return Ok(State::Served);
        }
        // The last part of the name is what an operator looks for.
        let name = row.name.split(['.', ' ']).any(|part| said.contains(part));
        if said.contains("is not supported by this version of Steeple") && name {
            return Ok(State::Refused);
        }
        bail!("{said}")
    }
}

struct Plugin {
    kind: String,
    name: String,
    text: String,
}

/// `NodeAttestor x509pop.mode` with its data, or the whole block behind an `@`.
fn plugin(row: &Row) -> Result<Plugin> {
    if let Some(text) = row.how.strip_prefix('@') {
        let mut words = text.split(' ');
        let (kind, name) = words.next().zip(words.next()).context("type and name")?;
        let (kind, name) = (kind.to_owned(), name.trim_matches('"').to_owned());
        return Ok(Plugin { kind, name, text: text.to_owned() });
    }
    let (kind, rest) = row.name.split_once(' ').context("type and name")?;
    let name = rest.split('.').next().unwrap_or(rest);
    let text = format!("{kind} \"{name}\" {{ plugin_data {{ {} }} }}", row.how);
    Ok(Plugin { kind: kind.to_owned(), name: name.to_owned(), text })
}

fn server(option: &str, plugin: &[Plugin], block: &str) -> String {
    let lines = base(SERVER, option);
    format!("server {{\n{lines}{option}\n}}\n{}{block}\n", plugins(SERVER_PLUGINS, plugin))
}

fn agent(option: &str, plugin: &[Plugin], block: &str) -> String {
    let mut lines = base(AGENT, option);
    if !["trust_bundle_path", "trust_bundle_url", "trust_bundle_spiffe", "insecure_bootstrap"]
        .iter()
        .any(|source| option.contains(source))
    {
        lines.push_str("insecure_bootstrap = true\n");
    }
    let lines = lines + option;
    format!("agent {{\n{lines}\n}}\n{}{block}\n", plugins(AGENT_PLUGINS, plugin))
}

fn base(lines: &[(&str, &str)], option: &str) -> String {
    let kept = lines.iter().filter(|(key, _)| !option.starts_with(&format!("{key} =")));
    kept.flat_map(|(_, line)| [*line, "\n"]).collect()
}

fn plugins(base: &[(&str, &str, bool, &str)], under_test: &[Plugin]) -> String {
    let mut text = String::new();
    for (kind, name, only, data) in base {
        let replaced =
            under_test.iter().any(|plugin| plugin.kind == *kind && (*only || plugin.name == *name));
        if !replaced {
            text.extend([kind, " \"", name, "\" { plugin_data { ", data, " } }\n"]);
        }
    }
    text.extend(under_test.iter().map(|plugin| format!("{}\n", plugin.text)));
    format!("plugins {{\n{text}}}\n")
}
