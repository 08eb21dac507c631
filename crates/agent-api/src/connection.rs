//! One call to an API of the admin socket, in SPIRE's metrics.

use metrics::Gauge;

/// Counts as open until it is dropped.
pub(crate) struct Connection(Gauge);

impl Connection {
    /// `total` counts calls, `open` is how many there are now.
    pub fn open(total: &'static str, open: &'static str) -> Self {
        metrics::counter!(total).increment(1);
        let open = metrics::gauge!(open);
        open.increment(1.0);
        Self(open)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
