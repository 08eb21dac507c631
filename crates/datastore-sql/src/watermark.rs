//! A note beside the database (`<database>-steeple`) of which log it held and how far that log had come. A database
//! that is behind its note, or has none, was restored from a copy: agents may have seen revisions that are now
//! different, so the log starts anew under another id.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use steeple_datastore::Revision;

/// The note, open for writing.
pub(crate) struct Watermark {
    file: File,
    log_id: String,
    complained: bool,
}

impl Watermark {
    pub fn path(database: &Path) -> PathBuf {
        let mut name = database.as_os_str().to_owned();
        name.push("-steeple");
        name.into()
    }

    /// The log and revision that were noted, if any.
    pub fn read(database: &Path) -> Option<(String, Revision)> {
        let mut text = String::new();
        File::open(Self::path(database)).ok()?.read_to_string(&mut text).ok()?;
        let (log_id, head) = text.trim_end().split_once(' ')?;
        Some((log_id.to_owned(), Revision(head.parse().ok()?)))
    }

    pub fn create(database: &Path, log_id: String, head: Revision) -> io::Result<Self> {
        let file = File::options().create(true).write(true).truncate(false).open(Self::path(database))?;
        let mut watermark = Self { file, log_id, complained: false };
        watermark.try_note(head)?;
        Ok(watermark)
    }

    /// Notes how far the log has come. It is not synced: a note that is behind does no harm.
    pub fn note(&mut self, head: Revision) {
        match self.try_note(head) {
            Ok(()) => self.complained = false,
            Err(error) if !self.complained => {
                self.complained = true;
                complain(&error);
            }
            Err(_) => {}
        }
    }

    /// Always of one length, so that it is replaced as a whole.
    fn try_note(&mut self, head: Revision) -> io::Result<()> {
        self.file.rewind()?;
        self.file.write_all(format!("{} {:020}\n", self.log_id, head.0).as_bytes())
    }
}

/// Without a note the server works; only a restored database goes unnoticed.
pub(crate) fn complain(error: &io::Error) {
    tracing::warn!(subsystem_name = "sql", %error, "Cannot note the change log's position beside the database");
}
