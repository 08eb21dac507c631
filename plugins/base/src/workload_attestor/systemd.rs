//! SPIRE's `systemd` attestor (spire.md §3.9): the unit of the calling process, asked of systemd over D-Bus.
//!
//! systemd tells by the process's cgroup as PID 1 knows it: what a user or a service makes below its own unit does not
//! change the answer. A process of no unit has no selectors; SPIRE calls that a failure.

mod bus;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use steeple_plugin::{Caller, WorkloadAttestError, WorkloadAttestor};
use steeple_runtime::gate::{Gate, Unanswered};

use bus::{Bus, BusError};
use wire::{Argument, Call};

pub use wire::{Message, WireError, parse};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const NO_UNIT: &str = "org.freedesktop.systemd1.NoUnitForPID";
const DEFAULT_BUS: &str = "unix:path=/var/run/dbus/system_bus_socket";

/// Connections to the bus at once: it allows a user some hundreds.
const AT_ONCE: usize = 16;
/// systemd answers in a millisecond.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// Where the system's bus is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemdConfig {
    /// Environment variable `DBUS_SYSTEM_BUS_ADDRESS` (the first `unix:path=` in it), else the usual place.
    pub socket: PathBuf,
}

impl Default for SystemdConfig {
    fn default() -> Self {
        let given = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok();
        let socket = given.as_deref().and_then(socket_of).or_else(|| socket_of(DEFAULT_BUS));
        Self { socket: socket.unwrap_or_default() }
    }
}

/// Of a D-Bus address: alternatives between semicolons, keys between commas.
fn socket_of(address: &str) -> Option<PathBuf> {
    let unix = address.split(';').filter_map(|one| one.trim().strip_prefix("unix:"));
    let mut paths = unix.flat_map(|keys| keys.split(',')).filter_map(|key| key.strip_prefix("path="));
    paths.next().filter(|path| path.starts_with('/')).map(PathBuf::from)
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Systemd {
    config: SystemdConfig,
    gate: Gate,
}

/// What the selectors are made of.
struct Unit {
    id: String,
    fragment_path: String,
}

impl Systemd {
    pub fn new(config: SystemdConfig) -> Self {
        Self { config, gate: Gate::new(AT_ONCE, ANSWERS_WITHIN) }
    }

    /// A connection for each question: nothing is kept while nobody asks, and nothing can be stale.
    async fn unit(&self, pid: u32) -> Result<Option<Unit>, BusError> {
        let mut bus = Bus::connect(&self.config.socket).await?;
        let manager = Call {
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "GetUnitByPID",
            destination: SYSTEMD,
            arguments: &[Argument::U32(pid)],
        };
        let unit = match bus.call(&manager).await {
            Ok(reply) => reply.object_path()?,
            Err(BusError::Refused { name, .. }) if name == NO_UNIT => return Ok(None),
            Err(error) => return Err(error),
        };
        let id = property(&mut bus, &unit, "Id").await?;
        let fragment_path = property(&mut bus, &unit, "FragmentPath").await?;
        Ok(Some(Unit { id, fragment_path }))
    }
}

async fn property(bus: &mut Bus, unit: &str, name: &str) -> Result<String, BusError> {
    let get = Call {
        path: unit,
        interface: "org.freedesktop.DBus.Properties",
        member: "Get",
        destination: SYSTEMD,
        arguments: &[Argument::Text("org.freedesktop.systemd1.Unit"), Argument::Text(name)],
    };
    Ok(bus.call(&get).await?.text_variant()?)
}

#[async_trait]
impl WorkloadAttestor for Systemd {
    fn name(&self) -> &'static str {
        "systemd"
    }

    async fn attest(&self, caller: &dyn Caller) -> Result<Vec<String>, WorkloadAttestError> {
        let pid = caller.pid();
        let told = self.gate.pass("", self.unit(pid.unsigned_abs())).await;
        // It held its number all the while: the answer is about it.
        caller.still_here().map_err(|_| WorkloadAttestError::Gone { pid })?;
        let failed = |why: &dyn std::fmt::Display| format!("failed to get unit by pid {pid}: {why}");
        let unit = match told {
            Ok(unit) => unit.map_err(|error| WorkloadAttestError::Other(failed(&error)))?,
            Err(silent @ Unanswered::StillSilent(_)) => {
                return Err(WorkloadAttestError::StillSilent(failed(&silent)));
            }
            Err(late @ Unanswered::Late(_)) => return Err(WorkloadAttestError::Other(failed(&late))),
        };
        let Some(unit) = unit else { return Ok(Vec::new()) };
        Ok(vec![format!("id:{}", unit.id), format!("fragment_path:{}", unit.fragment_path)])
    }
}

#[cfg(test)]
mod tests;
