//! How the first contact with the server goes, and the first one after the trust was given up, as SPIRE's metrics and
//! its file tell it.

use jiff::Timestamp;
use steeple_agent_core::agent_data::BootstrapState;

/// See the [module](self).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bootstrap {
    /// There was a bundle before.
    again: bool,
    attempts: u32,
    /// Unix seconds; `None` while all is well.
    since: Option<i64>,
}

/// One question for the bootstrap source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// `bootstrap` or `rebootstrap`
    pub mode: &'static str,
    pub number: u32,
    /// When the first was made, Unix seconds.
    pub since: i64,
}

impl Attempt {
    /// SPIRE's line.
    pub(super) fn tell(&self) {
        let what = if self.mode == MODES[0] { "attestation" } else { "reattestation" };
        let since = Timestamp::from_second(self.since).unwrap_or_default();
        tracing::info!("Server {what} attempt {}. Started {since}.", self.number);
    }
}

const MODES: [&str; 2] = ["bootstrap", "rebootstrap"];
/// What Go makes of a time that was never set.
const NEVER: i64 = -62_135_596_800;
const NEVER_TEXT: &str = "0001-01-01T00:00:00Z";
/// SPIRE's numbers for the mode.
const USE_BOOTSTRAP: i64 = 1;
const USE_REBOOTSTRAP: i64 = 2;

impl Bootstrap {
    pub fn from_stored(state: &BootstrapState, has_bundle: bool) -> Self {
        let again = match state.bootstrap_use {
            USE_REBOOTSTRAP => true,
            USE_BOOTSTRAP => false,
            _ => has_bundle,
        };
        let since = state.bootstrap_start_time.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        let since = since.map(Timestamp::as_second).filter(|since| *since > NEVER);
        Self { again, attempts: u32::try_from(state.connection_attempts).unwrap_or(0), since }
    }

    pub fn stored(&self) -> BootstrapState {
        let since = self.since.and_then(|since| Timestamp::from_second(since).ok());
        BootstrapState {
            bootstrap_use: if self.again { USE_REBOOTSTRAP } else { USE_BOOTSTRAP },
            bootstrap_start_time: Some(
                since.map_or_else(|| NEVER_TEXT.to_owned(), |since| since.to_string()),
            ),
            connection_attempts: i64::from(self.attempts),
        }
    }

    /// Since when the server has not been the one of the bundle, if it is not.
    pub fn distrusting(&self) -> Option<i64> {
        self.since.filter(|_| self.again && self.attempts == 0)
    }

    /// The agent asks for its first trust at `now`.
    pub fn tried(&mut self, now: i64) -> Attempt {
        self.attempts += 1;
        let since = *self.since.get_or_insert(now);
        self.measure();
        Attempt { mode: MODES[usize::from(self.again)], number: self.attempts, since }
    }

    /// The server is not the one of the bundle. True if that is news.
    pub fn distrusted(&mut self, now: i64) -> bool {
        let news = self.since.is_none();
        self.again = true;
        self.since.get_or_insert(now);
        self.measure();
        news
    }

    /// The bundle is given up at `now`.
    pub fn begins_anew(&mut self, now: i64) {
        *self = Self { again: true, attempts: 0, since: Some(now) };
        self.measure();
    }

    /// The server was found to be the one.
    pub fn succeeded(&mut self) {
        *self = Self { again: true, ..Self::default() };
        self.measure();
    }

    fn measure(&self) {
        metrics::gauge!("bootstrapped").set(if self.since.is_none() { 1.0 } else { 0.0 });
        for (n, mode) in MODES.into_iter().enumerate() {
            let now = n == usize::from(self.again);
            let (attempts, since) = if now { (self.attempts, self.since) } else { (0, None) };
            metrics::gauge!("bootstrap_attempts", "mode" => mode).set(f64::from(attempts));
            metrics::gauge!("bootstrap_seconds", "mode" => mode).set(since.unwrap_or(NEVER) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_count_from_the_first_to_success() {
        let mut bootstrap = Bootstrap::default();
        assert_eq!(bootstrap.tried(5), Attempt { mode: "bootstrap", number: 1, since: 5 });
        assert_eq!(bootstrap.tried(9), Attempt { mode: "bootstrap", number: 2, since: 5 });
        bootstrap.succeeded();
        assert_eq!(bootstrap, Bootstrap { again: true, ..Bootstrap::default() });
        assert!(bootstrap.distrusted(20));
        assert!(!bootstrap.distrusted(30));
        assert_eq!(bootstrap.distrusting(), Some(20));
        bootstrap.begins_anew(40);
        assert_eq!(bootstrap.tried(50), Attempt { mode: "rebootstrap", number: 1, since: 40 });
    }

    #[test]
    fn spires_members_survive() {
        let mut bootstrap = Bootstrap::default();
        bootstrap.succeeded();
        let stored = bootstrap.stored();
        assert_eq!(stored.bootstrap_start_time.as_deref(), Some("0001-01-01T00:00:00Z"));
        assert_eq!(stored.bootstrap_use, 2);
        assert_eq!(Bootstrap::from_stored(&stored, true), bootstrap);
        bootstrap.distrusted(1_800_000_000);
        assert_eq!(bootstrap.stored().bootstrap_start_time.as_deref(), Some("2027-01-15T08:00:00Z"));
        assert_eq!(Bootstrap::from_stored(&bootstrap.stored(), true), bootstrap);
        assert!(Bootstrap::from_stored(&BootstrapState::default(), true).again);
        assert!(!Bootstrap::from_stored(&BootstrapState::default(), false).again);
    }
}
