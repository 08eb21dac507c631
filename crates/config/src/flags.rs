//! Command lines as Go's `flag` package reads them, with its messages and its usage text.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::duration::GoDuration;
use crate::number::{IntError, parse_int};
use crate::quote::go_quote;

/// The flags of one command. Define them, keep the handles, [`parse`](Self::parse), read the handles.
pub struct FlagSet {
    name: String,
    flags: Vec<Definition>,
    rest: Vec<String>,
}

/// A typed handle to a flag's value. Cheap to clone; all clones see one value.
#[derive(Debug, Clone)]
pub struct Flag<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    value: T,
    set: bool,
}

struct Definition {
    name: String,
    usage: String,
    /// What the usage text calls the value; empty for a boolean.
    value_name: &'static str,
    /// ` (default …)` or nothing.
    default: String,
    boolean: bool,
    set: Setter,
}

/// Takes the argument's text, answers Go's words for what is wrong with it.
type Setter = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The command line is not usable, or asks for help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagError {
    /// `None`: help was asked for.
    message: Option<String>,
    usage: String,
}

impl FlagError {
    /// `-h` or `-help`.
    pub fn is_help(&self) -> bool {
        self.message.is_none()
    }

    /// What Go prints on stderr: the message, if it is not a request for help, and the usage text.
    pub fn output(&self) -> String {
        match &self.message {
            Some(message) => format!("{message}\n{}", self.usage),
            None => self.usage.clone(),
        }
    }
}

/// Go's error text.
impl std::fmt::Display for FlagError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or("flag: help requested"))
    }
}

impl std::error::Error for FlagError {}

impl<T> Flag<T> {
    fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(State { value, set: false })))
    }

    /// Given on the command line (even if with the default's value).
    pub fn is_set(&self) -> bool {
        self.state().set
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Flag<T> {
    pub fn get(&self) -> T {
        self.state().value.clone()
    }

    /// The value if the flag was given.
    pub fn get_if_set(&self) -> Option<T> {
        let state = self.state();
        state.set.then(|| state.value.clone())
    }
}

impl FlagSet {
    /// `name` is the command as its usage text names it: `entry create`.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), flags: Vec::new(), rest: Vec::new() }
    }

    pub fn string(&mut self, name: &str, default: &str, usage: &str) -> Flag<String> {
        let shown = if default.is_empty() { None } else { Some(go_quote(default)) };
        self.define(name, usage, "string", shown, default.to_owned(), |value, text| {
            text.clone_into(value);
            Ok(())
        })
    }

    /// Needs no argument; one is given as `-name=false`.
    pub fn bool(&mut self, name: &str, default: bool, usage: &str) -> Flag<bool> {
        let shown = default.then(|| "true".to_owned());
        let flag = self.define(name, usage, "", shown, default, |value, text| {
            *value = parse_bool(text).ok_or("parse error")?;
            Ok(())
        });
        if let Some(definition) = self.flags.last_mut() {
            definition.boolean = true;
        }
        flag
    }

    pub fn int(&mut self, name: &str, default: i64, usage: &str) -> Flag<i64> {
        let shown = (default != 0).then(|| default.to_string());
        self.define(name, usage, "int", shown, default, |value, text| {
            *value = parse_int(text).map_err(|e| match e {
                IntError::Syntax => "parse error",
                IntError::Range => "value out of range",
            })?;
            Ok(())
        })
    }

    /// Go's `DurationVar`.
    pub fn duration(&mut self, name: &str, default: GoDuration, usage: &str) -> Flag<GoDuration> {
        let shown = (!default.is_zero()).then(|| default.to_string());
        self.define(name, usage, "duration", shown, default, |value, text| {
            *value = text.parse().map_err(|_| "parse error")?;
            Ok(())
        })
    }

    /// SPIRE's own duration flag (`-timeout` of the agent's `api` commands): it says what is wrong, and its value is
    /// called `value`.
    pub fn duration_value(&mut self, name: &str, default: GoDuration, usage: &str) -> Flag<GoDuration> {
        let shown = (!default.is_zero()).then(|| default.to_string());
        self.value(name, usage, shown, default, |value, text| {
            *value = text.parse().map_err(|e: crate::DurationError| e.to_string())?;
            Ok(())
        })
    }

    /// May be given again; each occurrence adds one string.
    pub fn strings(&mut self, name: &str, usage: &str) -> Flag<Vec<String>> {
        self.value(name, usage, None, Vec::new(), |value, text| {
            value.push(text.to_owned());
            Ok(())
        })
    }

    /// Strings separated by commas; the last occurrence counts.
    pub fn csv(&mut self, name: &str, usage: &str) -> Flag<Vec<String>> {
        self.value(name, usage, None, Vec::new(), |value, text| {
            *value = text.split(',').map(str::to_owned).collect();
            Ok(())
        })
    }

    /// `true`, `false`, or, for anything else, `None` (SPIRE: "all"). Needs an argument.
    pub fn tri_bool(&mut self, name: &str, usage: &str) -> Flag<Option<bool>> {
        self.value(name, usage, None, None, |value, text| {
            *value = match text {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            };
            Ok(())
        })
    }

    /// A value of any type. `shown` is the default for the usage text, `set` takes each occurrence and answers with
    /// the words that follow `invalid value "x" for flag -name: `.
    pub fn value<T: Send + 'static>(
        &mut self,
        name: &str,
        usage: &str,
        shown: Option<String>,
        initial: T,
        set: impl Fn(&mut T, &str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Flag<T> {
        self.define(name, usage, "value", shown, initial, set)
    }

    /// Reads flags up to the first argument that is none, or up to `--`. The first bad flag ends it.
    pub fn parse<S: AsRef<str>>(&mut self, args: &[S]) -> Result<(), FlagError> {
        let mut rest: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        rest.reverse();
        let result = loop {
            match self.parse_one(&mut rest) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.rest = rest.into_iter().rev().map(str::to_owned).collect();
        result
    }

    /// What follows the flags.
    pub fn args(&self) -> &[String] {
        &self.rest
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `Usage of <command>:` and the flags in alphabetical order, as Go prints them.
    pub fn usage(&self) -> String {
        let mut out =
            if self.name.is_empty() { "Usage:\n".to_owned() } else { format!("Usage of {}:\n", self.name) };
        let mut flags: Vec<&Definition> = self.flags.iter().collect();
        flags.sort_by(|a, b| a.name.cmp(&b.name));
        for flag in flags {
            let (value_name, usage) = unquote_usage(flag);
            let mut line = format!("  -{}", flag.name);
            if !value_name.is_empty() {
                line.push(' ');
                line.push_str(value_name);
            }
            // A boolean of one letter shares its line with its description.
            line.push_str(if line.len() <= 4 { "\t" } else { "\n    \t" });
            line.push_str(&usage.replace('\n', "\n    \t"));
            out.push_str(&line);
            out.push_str(&flag.default);
            out.push('\n');
        }
        out
    }

    fn define<T: Send + 'static>(
        &mut self,
        name: &str,
        usage: &str,
        value_name: &'static str,
        shown: Option<String>,
        initial: T,
        set: impl Fn(&mut T, &str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Flag<T> {
        let flag = Flag::new(initial);
        let state = Arc::clone(&flag.0);
        let set: Setter = Box::new(move |text| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            set(&mut state.value, text)?;
            state.set = true;
            Ok(())
        });
        self.flags.push(Definition {
            name: name.to_owned(),
            usage: usage.to_owned(),
            value_name,
            default: shown.map(|text| format!(" (default {text})")).unwrap_or_default(),
            boolean: false,
            set,
        });
        flag
    }

    /// One flag off the stack; `false` when the flags are over.
    fn parse_one(&self, rest: &mut Vec<&str>) -> Result<bool, FlagError> {
        let Some(&arg) = rest.last() else {
            return Ok(false);
        };
        let Some(name) = arg.strip_prefix('-').filter(|name| !name.is_empty()) else {
            return Ok(false);
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        if arg == "--" {
            rest.pop();
            return Ok(false);
        }
        if name.is_empty() || name.starts_with(['-', '=']) {
            return Err(self.fail(format!("bad flag syntax: {arg}")));
        }
        rest.pop();
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let Some(flag) = self.flags.iter().find(|f| f.name == name) else {
            if name == "help" || name == "h" {
                return Err(FlagError { message: None, usage: self.usage() });
            }
            return Err(self.fail(format!("flag provided but not defined: -{name}")));
        };
        if flag.boolean {
            let value = value.unwrap_or("true");
            (flag.set)(value).map_err(|e| {
                self.fail(format!("invalid boolean value {} for -{name}: {e}", go_quote(value)))
            })?;
            return Ok(true);
        }
        let Some(value) = value.or_else(|| rest.pop()) else {
            return Err(self.fail(format!("flag needs an argument: -{name}")));
        };
        (flag.set)(value)
            .map_err(|e| self.fail(format!("invalid value {} for flag -{name}: {e}", go_quote(value))))?;
        Ok(true)
    }

    fn fail(&self, message: String) -> FlagError {
        FlagError { message: Some(message), usage: self.usage() }
    }
}

/// A name in back quotes in the description is the value's name.
fn unquote_usage(flag: &Definition) -> (&str, String) {
    let mut parts = flag.usage.splitn(3, '`');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(before), Some(name), Some(after)) => (name, format!("{before}{name}{after}")),
        _ => (flag.value_name, flag.usage.clone()),
    }
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
