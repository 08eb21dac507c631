//! What the `logger` commands of server and agent share: levels by logrus' names, and their text.

use steeple_config::go_quote;
use steeple_proto::spire::api::types::{LogLevel, Logger};

use crate::Failure;

pub const MESSAGE: &str = "spire.api.types.Logger";

/// The level a user names, in any case.
pub fn parse_level(text: &str) -> Result<LogLevel, Failure> {
    if text.is_empty() {
        return Err(Failure::new("a value (-level) must be set"));
    }
    match text.to_lowercase().as_str() {
        "panic" => Ok(LogLevel::Panic),
        "fatal" => Ok(LogLevel::Fatal),
        "error" => Ok(LogLevel::Error),
        "warn" | "warning" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        _ => Err(Failure::new(format!("the value {} is not a valid setting", go_quote(text)))),
    }
}

pub fn pretty(logger: &Logger) -> Result<String, Failure> {
    let (current, launch) =
        (level_name(logger.current_level, "current")?, level_name(logger.launch_level, "launch")?);
    Ok(format!("Logger Level : {current}\nLaunch Level : {launch}\n\n"))
}

fn level_name(level: i32, which: &str) -> Result<&'static str, Failure> {
    match LogLevel::try_from(level) {
        Ok(LogLevel::Panic) => Ok("panic"),
        Ok(LogLevel::Fatal) => Ok("fatal"),
        Ok(LogLevel::Error) => Ok("error"),
        Ok(LogLevel::Warn) => Ok("warning"),
        Ok(LogLevel::Info) => Ok("info"),
        Ok(LogLevel::Debug) => Ok("debug"),
        Ok(LogLevel::Trace) => Ok("trace"),
        Ok(LogLevel::Unspecified) | Err(_) => Err(Failure::new(format!(
            "internal error: returned {which} log level is undefined; please report this as a bug"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        assert_eq!(parse_level("WARNING"), Ok(LogLevel::Warn));
        assert_eq!(parse_level("").unwrap_err().to_string(), "a value (-level) must be set");
        assert_eq!(parse_level("Nope").unwrap_err().to_string(), "the value \"Nope\" is not a valid setting");
    }

    #[test]
    fn text() {
        let logger = Logger { current_level: LogLevel::Debug as i32, launch_level: LogLevel::Warn as i32 };
        assert_eq!(pretty(&logger).unwrap(), "Logger Level : debug\nLaunch Level : warning\n\n");
        assert!(pretty(&Logger::default()).is_err());
    }
}
