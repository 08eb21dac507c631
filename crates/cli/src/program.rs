//! A program's commands by name, and what happens when the name is wrong. Exit codes are those of SPIRE's library
//! (mitchellh/cli): 127 for no or an unknown command, 1 for a group without its verb, 0 for help.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::Io;

/// Takes the arguments behind a command's name (`["-h"]`: print the usage on stderr), answers the exit code.
pub type Main = fn(&[String]) -> u8;

/// One command.
#[derive(Clone, Copy)]
pub struct Command {
    /// `entry create`
    pub name: &'static str,
    /// One line for the list of commands.
    pub about: &'static str,
    pub run: Run,
}

#[derive(Clone, Copy)]
pub enum Run {
    With(Main),
    /// The same, if the first says so; else there is no such command.
    Behind(fn() -> bool, Main),
}

impl Command {
    fn run(&self) -> Option<Main> {
        match self.run {
            Run::With(run) => Some(run),
            Run::Behind(flag, run) => flag().then_some(run),
        }
    }
}

pub struct Program {
    pub name: &'static str,
    pub version: &'static str,
    pub commands: &'static [Command],
}

impl Program {
    /// The `main` of a binary.
    pub fn main(&self) -> ExitCode {
        let args: Vec<String> =
            std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
        ExitCode::from(self.run(&args, &mut Io::process()))
    }

    /// `args` without the program's name.
    pub fn run(&self, args: &[String], io: &mut Io) -> u8 {
        let line = Line::read(args);
        if line.version {
            // On stderr, as SPIRE's.
            io.eprint(&format!("{}\n", self.version));
            return 0;
        }
        if line.words.is_empty() {
            io.eprint(&self.help(""));
            return if line.help { 0 } else { NO_COMMAND };
        }
        let Some((name, command)) = self.find(line.words) else {
            io.eprint(&self.help(""));
            return if line.help { 0 } else { NO_COMMAND };
        };
        let rest = &args[line.first + name.split(' ').count()..];
        match command {
            None => {
                io.eprint(&self.help(name));
                u8::from(!line.help)
            }
            Some(run) if line.help => {
                run(&["-h".to_owned()]);
                0
            }
            Some(_) if line.first > 0 => {
                io.eprint(&format!(
                    "Error: {} stands before the command; flags go behind \"{name}\"\n",
                    args[0]
                ));
                1
            }
            Some(run) => run(rest),
        }
    }

    /// The longest beginning of `words` that is a command, or a group of commands (`None`).
    fn find(&self, words: &[String]) -> Option<(&str, Option<Main>)> {
        (1..=words.len()).rev().find_map(|count| {
            let wanted = words[..count].join(" ");
            self.commands.iter().find_map(|command| {
                let run = command.run()?;
                if command.name == wanted {
                    return Some((command.name, Some(run)));
                }
                let group = command.name.get(..wanted.len())?;
                (group == wanted && command.name.as_bytes().get(wanted.len()) == Some(&b' '))
                    .then_some((group, None))
            })
        })
    }

    /// All commands, or those of one group.
    fn help(&self, group: &str) -> String {
        let mut commands: Vec<&Command> = self
            .commands
            .iter()
            .filter(|c| c.run().is_some())
            .filter(|c| {
                group.is_empty() || c.name.strip_prefix(group).is_some_and(|rest| rest.starts_with(' '))
            })
            .collect();
        commands.sort_by_key(|command| command.name);
        let width = commands.iter().map(|command| command.name.len()).max().unwrap_or_default();
        let mut text = format!("Usage: {} [--version] [--help] <command> [<args>]\n", self.name);
        text.push_str("\nCommands (-h behind one shows its flags):\n");
        for command in commands {
            let _ = writeln!(text, "    {:width$}    {}", command.name, command.about);
        }
        text
    }
}

const NO_COMMAND: u8 = 127;

/// What the arguments say before any command looks at them.
struct Line<'a> {
    help: bool,
    version: bool,
    /// Where the words begin.
    first: usize,
    /// The words up to the next flag: the command is some of them.
    words: &'a [String],
}

impl<'a> Line<'a> {
    fn read(args: &'a [String]) -> Self {
        let is_flag = |arg: &String| arg.starts_with('-');
        let first = args.iter().position(|arg| !arg.is_empty() && !is_flag(arg)).unwrap_or(args.len());
        let end = args[first..].iter().position(|arg| arg.is_empty() || arg.contains(' ') || is_flag(arg));
        let words = &args[first..end.map_or(args.len(), |end| first + end)];
        let before_dashes = || args.iter().take_while(|arg| *arg != "--");
        Self {
            help: before_dashes().any(|arg| ["-h", "-help", "--help"].contains(&arg.as_str())),
            version: args[..first].iter().any(|arg| ["-v", "-version", "--version"].contains(&arg.as_str())),
            first,
            words,
        }
    }
}

#[cfg(test)]
mod tests;
