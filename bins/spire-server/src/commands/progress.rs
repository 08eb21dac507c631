//! How far a long command is, on a terminal.

use std::time::Duration;

use indicatif::ProgressBar;
use steeple_cli::Io;

/// A line that says which table's rows are done.
pub struct RowProgress(ProgressBar);

impl RowProgress {
    pub fn new(io: &Io) -> Self {
        if !io.is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    pub fn show(&mut self, table: &str, rows: u64) {
        self.0.set_message(format!("{table}: {rows} rows"));
    }

    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}
