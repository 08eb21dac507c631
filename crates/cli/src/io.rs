//! Where a command reads and prints. Tests give it buffers.

use std::io::{self, IsTerminal as _, Read, Write};

use crate::Failure;

pub struct Io {
    pub stdin: Box<dyn Read>,
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
    terminal: bool,
}

impl Io {
    /// The process's own.
    pub fn process() -> Self {
        Self {
            stdin: Box::new(io::stdin()),
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
            terminal: io::stderr().is_terminal(),
        }
    }

    pub fn new(
        stdin: impl Read + 'static,
        stdout: impl Write + 'static,
        stderr: impl Write + 'static,
    ) -> Self {
        Self { stdin: Box::new(stdin), stdout: Box::new(stdout), stderr: Box::new(stderr), terminal: false }
    }

    /// A person watches stderr: progress may be shown there.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// To stdout, as it is. A reader that went away is an error: the command has not said what it had to say.
    pub fn print(&mut self, text: &str) -> Result<(), Failure> {
        self.stdout.write_all(text.as_bytes())?;
        Ok(self.stdout.flush()?)
    }

    /// To stderr, as it is. Nobody can be told when that fails.
    pub fn eprint(&mut self, text: &str) {
        let _ = self.stderr.write_all(text.as_bytes());
    }

    /// All of `path`, or of stdin when it is `-`.
    pub fn read(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        if path == "-" { self.read_stdin() } else { crate::files::read(path) }
    }

    pub fn read_stdin(&mut self) -> Result<Vec<u8>, Failure> {
        let mut data = Vec::new();
        self.stdin.read_to_end(&mut data)?;
        Ok(data)
    }
}
