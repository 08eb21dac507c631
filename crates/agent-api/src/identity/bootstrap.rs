//! How the first contact with the server goes, as SPIRE's metrics tell it.

/// See the [module](self).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bootstrap {
    attempts: u32,
    /// Unix seconds; `None` while there is nothing to bootstrap.
    since: Option<i64>,
}

/// What Go makes of a time that was never set.
const NEVER: i64 = -62_135_596_800;

impl Bootstrap {
    /// The agent asks for its first trust at `now`.
    pub fn tried(&mut self, now: i64) {
        self.attempts += 1;
        self.since.get_or_insert(now);
        self.tell();
    }

    /// The server was found to be the one.
    pub fn succeeded(&mut self) {
        *self = Self::default();
        self.tell();
    }

    fn tell(&self) {
        metrics::gauge!("bootstrapped").set(if self.since.is_none() { 1.0 } else { 0.0 });
        // Rebootstrapping is not served: it never begins.
        for (mode, attempts, since) in [("bootstrap", self.attempts, self.since), ("rebootstrap", 0, None)] {
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
        bootstrap.tried(5);
        bootstrap.tried(9);
        assert_eq!(bootstrap, Bootstrap { attempts: 2, since: Some(5) });
        bootstrap.succeeded();
        assert_eq!(bootstrap, Bootstrap::default());
    }
}
