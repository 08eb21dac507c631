//! `debug getinfo`: a daemon at a glance.

use std::fmt::Write as _;

use crate::go;

/// The text of an answer, line by line.
pub struct Glance {
    text: String,
    width: usize,
    certificates: usize,
}

impl Glance {
    /// Values stand in column `width`.
    pub fn new(title: &str, width: usize) -> Self {
        Self { text: format!("{title} Debug Info:\n"), width, certificates: 0 }
    }

    pub fn line(&mut self, label: &str, value: impl ToString) {
        let (width, value) = (self.width, value.to_string());
        let _ = writeln!(self.text, "  {label:width$}{value}");
    }

    /// The next certificate of the daemon's own SVID.
    pub fn certificate(&mut self, id: Option<&str>, subject: &str, expires_at: i64) {
        if self.certificates == 0 {
            self.text.push_str("  SVID Chain:\n");
        }
        let (i, id, expires) = (self.certificates, id.unwrap_or("(none)"), go::rfc3339_utc(expires_at));
        let _ = write!(
            self.text,
            "    [{i}] SPIFFE ID:  {id}\n        Subject:    {subject}\n        Expires At: {expires}\n"
        );
        self.certificates += 1;
    }

    pub fn end(self) -> String {
        self.text
    }
}
