//! SPIRE's options, checked.

use std::path::PathBuf;

use crate::engine::ApiVersion;
use crate::matchers::{MatcherError, Matchers};

const DOCKER_SOCKET: &str = "unix:///var/run/docker.sock";
const PODMAN_SOCKET: &str = "unix:///run/podman/podman.sock";

/// As the file has them: absent or empty is the default (SPIRE).
#[derive(Clone, Debug, Default)]
pub struct DockerOptions {
    pub docker_socket_path: Option<String>,
    pub podman_socket_path: Option<String>,
    pub podman_socket_path_template: Option<String>,
    pub docker_version: Option<String>,
    pub container_id_cgroup_matchers: Vec<String>,
    pub use_new_container_locator: Option<bool>,
    pub verbose_container_locator_logs: bool,
}

/// What the attestor needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfig {
    pub docker_socket: PathBuf,
    /// None: the newest that the daemon has.
    pub docker_version: Option<ApiVersion>,
    pub podman_socket: PathBuf,
    /// Where Podman of a user listens. Only if the operator wrote it: such an engine says what its user wants.
    pub rootless_podman: Option<SocketTemplate>,
    /// Instead of the shape of a container's ID.
    pub matchers: Option<Matchers>,
    /// Logs the cgroups and mounts of each caller, for finding out why no container was found.
    pub verbose: bool,
}

/// Why the options are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DockerConfigError {
    #[error(
        "{option} {given:?} names no Unix socket; engines are asked on the caller's machine: write \"unix:///path\""
    )]
    Socket { option: &'static str, given: String },
    #[error("docker_version {0:?} is no version of Docker's API: write one such as \"1.41\"")]
    Version(String),
    // SPIRE's texts.
    #[error("invalid podman_socket_path_template: {0}")]
    Template(&'static str),
    #[error(
        "the new container locator and custom cgroup matchers cannot both be used; please open an issue if the new container locator fails to locate workload containers in your environment; to continue using custom matchers set use_new_container_locator=false"
    )]
    BothLocators,
    #[error(transparent)]
    Matchers(#[from] MatcherError),
}

impl DockerConfig {
    pub fn new(options: DockerOptions) -> Result<Self, DockerConfigError> {
        let matchers = match options.container_id_cgroup_matchers {
            patterns if patterns.is_empty() => None,
            _ if options.use_new_container_locator != Some(false) => {
                return Err(DockerConfigError::BothLocators);
            }
            patterns => Some(Matchers::new(&patterns)?),
        };
        let given = |value: Option<String>| value.filter(|text| !text.is_empty());
        let template = given(options.podman_socket_path_template);
        let version = given(options.docker_version);
        Ok(Self {
            docker_socket: socket("docker_socket_path", given(options.docker_socket_path), DOCKER_SOCKET)?,
            docker_version: version
                .map(|text| ApiVersion::parse(&text).ok_or(DockerConfigError::Version(text)))
                .transpose()?,
            podman_socket: socket("podman_socket_path", given(options.podman_socket_path), PODMAN_SOCKET)?,
            rootless_podman: template.map(|text| SocketTemplate::parse(&text)).transpose()?,
            matchers,
            verbose: options.verbose_container_locator_logs,
        })
    }
}

fn socket(option: &'static str, given: Option<String>, default: &str) -> Result<PathBuf, DockerConfigError> {
    let given = given.unwrap_or_else(|| default.to_owned());
    unix_path(&given).map(PathBuf::from).ok_or(DockerConfigError::Socket { option, given })
}

fn unix_path(address: &str) -> Option<&str> {
    address.strip_prefix("unix://").filter(|path| path.starts_with('/'))
}

/// `unix:///run/user/%d/podman/podman.sock`, in pieces around the user's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketTemplate {
    before: String,
    after: String,
}

impl SocketTemplate {
    /// One `%d`, and `%%` for a percent sign (SPIRE).
    pub fn parse(template: &str) -> Result<Self, DockerConfigError> {
        let mut parts = vec![String::new()];
        let mut chars = template.chars();
        while let Some(c) = chars.next() {
            match (c, parts.last_mut()) {
                ('%', last) => match (chars.next(), last) {
                    (Some('%'), Some(last)) => last.push('%'),
                    (Some('d'), _) => parts.push(String::new()),
                    (None, _) => return Err(DockerConfigError::Template("trailing % at end of template")),
                    _ => {
                        return Err(DockerConfigError::Template(
                            "template only supports escaped %% or the %d UID placeholder",
                        ));
                    }
                },
                (c, Some(last)) => last.push(c),
                (_, None) => {}
            }
        }
        let [before, after] = <[String; 2]>::try_from(parts).map_err(|_| {
            DockerConfigError::Template("template must contain exactly one %d UID placeholder")
        })?;
        let option = "podman_socket_path_template";
        let before = unix_path(&before)
            .ok_or_else(|| DockerConfigError::Socket { option, given: template.to_owned() })?;
        Ok(Self { before: before.to_owned(), after })
    }

    pub fn of(&self, uid: u32) -> PathBuf {
        PathBuf::from(format!("{}{uid}{}", self.before, self.after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: DockerOptions) -> String {
        DockerConfig::new(options).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_spires_but_engines_of_users_are_trusted_only_on_request() {
        let config = DockerConfig::new(DockerOptions::default()).unwrap();
        assert_eq!(config.docker_socket, PathBuf::from("/var/run/docker.sock"));
        assert_eq!(config.podman_socket, PathBuf::from("/run/podman/podman.sock"));
        assert_eq!((config.rootless_podman, config.docker_version, config.matchers), (None, None, None));
        // Empty is absent.
        let empty = DockerOptions {
            docker_socket_path: Some(String::new()),
            podman_socket_path_template: Some(String::new()),
            docker_version: Some(String::new()),
            ..DockerOptions::default()
        };
        assert_eq!(DockerConfig::new(empty).unwrap().docker_socket, PathBuf::from("/var/run/docker.sock"));
    }

    #[test]
    fn templates_have_one_place_for_the_user() {
        let template = |text: &str| SocketTemplate::parse(text);
        assert_eq!(
            template("unix:///run/user/%d/100%%/podman.sock").unwrap().of(1000),
            PathBuf::from("/run/user/1000/100%/podman.sock")
        );
        for (text, why) in [
            ("unix:///run/user/%s/podman.sock", "only supports"),
            ("unix:///run/user/%d/podman%", "trailing %"),
            ("unix:///run/user/podman.sock", "exactly one"),
            ("unix:///run/%d/%d.sock", "exactly one"),
            ("/run/%d.sock", "no Unix socket"),
            ("unix://%d/x", "no Unix socket"),
        ] {
            let error = template(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (options, why) in [
            (
                DockerOptions {
                    docker_socket_path: Some("tcp://127.0.0.1:2375".into()),
                    ..DockerOptions::default()
                },
                "docker_socket_path \"tcp://127.0.0.1:2375\"",
            ),
            (
                DockerOptions { podman_socket_path: Some("/run/x".into()), ..DockerOptions::default() },
                "podman_socket_path",
            ),
            (
                DockerOptions { docker_version: Some("1.41/../x".into()), ..DockerOptions::default() },
                "docker_version",
            ),
            (
                DockerOptions {
                    container_id_cgroup_matchers: vec!["/docker/<id>".into()],
                    ..DockerOptions::default()
                },
                "cannot both be used",
            ),
            (
                DockerOptions {
                    container_id_cgroup_matchers: vec!["/docker/".into()],
                    use_new_container_locator: Some(false),
                    ..DockerOptions::default()
                },
                "exactly once",
            ),
        ] {
            let error = refused(options);
            assert!(error.contains(why), "{error}");
        }
    }
}
