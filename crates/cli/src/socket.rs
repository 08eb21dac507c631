//! Which Unix socket a command talks to (spire.md §5.1).

use steeple_config::{Flag, FlagSet};

use crate::Failure;

/// The flags and the environment of one kind of socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketKind {
    pub default: &'static str,
    pub about: &'static str,
    /// The variable that names the socket, and the one that names it with `%i` for the instance. The agent's admin
    /// socket has neither, nor `-instance`.
    pub environment: Option<(&'static str, &'static str)>,
    /// How SPIRE complains about `-instance` without the template, `{}` being the variable.
    pub no_template: (&'static str, &'static str),
    /// SPIRE dials the server and the agent's admin socket through grpc-go's own `unix` resolver, which adds two
    /// slashes to an absolute path in its error message.
    pub slashes: &'static str,
}

pub const SERVER: SocketKind = SocketKind {
    default: "/tmp/spire-server/private/api.sock",
    about: "Path of the server's API socket",
    environment: Some(("SPIRE_SERVER_PRIVATE_SOCKET", "SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE")),
    no_template: ("you must define ", " to use the instance flag"),
    slashes: "//",
};

pub const WORKLOAD: SocketKind = SocketKind {
    default: "/tmp/spire-agent/public/api.sock",
    about: "Path of the agent's Workload API socket",
    environment: Some(("SPIRE_AGENT_PUBLIC_SOCKET", "SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE")),
    no_template: (" ", " environment variable must be defined when using the instance flag"),
    slashes: "",
};

pub const AGENT_ADMIN: SocketKind = SocketKind {
    default: "/tmp/spire-agent/private/admin.sock",
    about: "Path of the agent's admin API socket",
    environment: None,
    no_template: ("", ""),
    slashes: "//",
};

/// `-socketPath` and, where there is one, `-instance`.
pub struct SocketFlags {
    kind: SocketKind,
    path: Flag<String>,
    instance: Option<Flag<String>>,
}

impl SocketFlags {
    pub fn new(flags: &mut FlagSet, kind: SocketKind) -> Self {
        let path = flags.string("socketPath", kind.default, kind.about);
        let instance = kind.environment.map(|(_, template)| {
            flags.string("instance", "", &format!("Instance whose socket to use: replaces %i in ${template}"))
        });
        Self { kind, path, instance }
    }

    /// The socket the flags and the process's environment name.
    pub fn resolve(&self) -> Result<String, Failure> {
        let instance = self.instance.as_ref().map(Flag::get).unwrap_or_default();
        resolve(&self.kind, &self.path.get(), &instance, |name| std::env::var(name).ok())
    }

    pub fn kind(&self) -> SocketKind {
        self.kind
    }
}

/// A `-socketPath` other than the default, then `-instance`, then the environment, then the default.
pub fn resolve(
    kind: &SocketKind,
    path: &str,
    instance: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<String, Failure> {
    let Some((socket, template)) = kind.environment else {
        return Ok(if path.is_empty() { kind.default } else { path }.to_owned());
    };
    let environment = |name| environment(name).unwrap_or_default();
    let pattern = environment(template);
    if !instance.is_empty() {
        if pattern.is_empty() {
            let (before, after) = kind.no_template;
            return Err(Failure::new(format!("{before}{template}{after}")));
        }
        if !pattern.contains("%i") {
            return Err(Failure::new(format!("failed to find %i in {template}")));
        }
    }
    if path != kind.default {
        return Ok(path.to_owned());
    }
    if !instance.is_empty() {
        return Ok(pattern.replace("%i", instance));
    }
    let named = environment(socket);
    Ok(if named.is_empty() { kind.default.to_owned() } else { named })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "SPIRE_SERVER_PRIVATE_SOCKET" => Some("/env/api.sock".into()),
            "SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE" => Some("/env/%i/api.sock".into()),
            "SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE" => Some("/no/place".into()),
            _ => None,
        }
    }

    #[test]
    fn precedence() {
        let server = |path, instance| resolve(&SERVER, path, instance, environment).unwrap();
        assert_eq!(server("/flag.sock", "a"), "/flag.sock");
        assert_eq!(server(SERVER.default, "a"), "/env/a/api.sock");
        assert_eq!(server(SERVER.default, ""), "/env/api.sock");
        assert_eq!(resolve(&SERVER, SERVER.default, "", |_| None).unwrap(), SERVER.default);
        assert_eq!(resolve(&AGENT_ADMIN, "", "", environment).unwrap(), AGENT_ADMIN.default);
    }

    #[test]
    fn templates() {
        let failure = resolve(&WORKLOAD, "/x", "a", environment).unwrap_err();
        assert_eq!(failure.to_string(), "failed to find %i in SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE");
        let failure = resolve(&WORKLOAD, "/x", "a", |_| None).unwrap_err();
        assert!(failure.to_string().contains("SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE"), "{failure}");
        let failure = resolve(&SERVER, "/x", "a", |_| None).unwrap_err();
        assert!(failure.to_string().contains("SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE"), "{failure}");
    }
}
