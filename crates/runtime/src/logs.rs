//! logrus' text and JSON layouts over `tracing`: what operators' pipelines already parse.
//!
//! A line carries `time`, `level`, `msg`, then the fields of the event and of the spans around it, sorted. The field
//! `subsystem_name` says who speaks; an error goes into the field `error`.

mod layer;
mod layout;

use std::{
    fmt, io,
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use tracing_subscriber::{Registry, layer::SubscriberExt, util::SubscriberInitExt};

use self::layer::{Logrus, Sink};

/// What SPIRE's `log_*` options say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: LogLevel,
    /// Appended to; standard output without one.
    pub file: Option<PathBuf>,
    /// Adds `file` and `func`.
    pub source_location: bool,
}

/// The layout of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// No `log_format` given: text with times to the second.
    #[default]
    Default,
    /// Text with times to the nanosecond.
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = LogError;

    fn from_str(format: &str) -> Result<Self, LogError> {
        match format.to_ascii_uppercase().as_str() {
            "" => Ok(Self::Default),
            "TEXT" => Ok(Self::Text),
            "JSON" => Ok(Self::Json),
            _ => Err(LogError::Format(format.to_owned())),
        }
    }
}

/// logrus' levels. `tracing` has nothing above error: at `Panic` and `Fatal` nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum LogLevel {
    Panic,
    Fatal,
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    const ALL: [Self; 7] =
        [Self::Panic, Self::Fatal, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// As logrus prints it; `Warn` is `warning`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warn => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn filter(self) -> tracing::level_filters::LevelFilter {
        use tracing::level_filters::LevelFilter;
        match self {
            Self::Panic | Self::Fatal => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

impl FromStr for LogLevel {
    type Err = LogError;

    fn from_str(level: &str) -> Result<Self, LogError> {
        let lower = level.to_ascii_lowercase();
        if lower == "warn" {
            return Ok(Self::Warn);
        }
        Self::ALL
            .into_iter()
            .find(|known| known.name() == lower)
            .ok_or_else(|| LogError::Level(level.to_owned()))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("unknown logger format: {0:?}")]
    Format(String),
    #[error("not a valid logrus Level: {0:?}")]
    Level(String),
    #[error("open {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("logging is set up already")]
    Twice,
}

/// Changes logging while the program runs. Clones are the same.
#[derive(Debug, Clone)]
pub struct LogHandle {
    level: SharedLevel,
    launch: LogLevel,
    sink: Arc<Sink>,
}

/// Sets up logging for the process. Call it once.
pub fn init(config: LogConfig) -> Result<LogHandle, LogError> {
    let sink = Sink::open(config.file.clone())?;
    let (layer, handle) = build(&config, sink);
    Registry::default().with(layer).try_init().map_err(|_| LogError::Twice)?;
    Ok(handle)
}

/// A handle that no subscriber stands behind.
#[cfg(test)]
pub(crate) fn for_tests(config: &LogConfig) -> Result<LogHandle, LogError> {
    Ok(build(config, Sink::open(config.file.clone())?).1)
}

fn build(config: &LogConfig, sink: Sink) -> (Logrus, LogHandle) {
    let sink = Arc::new(sink);
    let level = SharedLevel::new(config.level);
    let layer = Logrus::new(config.format, config.source_location, level.clone(), sink.clone());
    (layer, LogHandle { level, launch: config.level, sink })
}

impl LogHandle {
    pub fn level(&self) -> LogLevel {
        self.level.load()
    }

    /// The level the program was started with.
    pub fn launch_level(&self) -> LogLevel {
        self.launch
    }

    pub fn set_level(&self, level: LogLevel) {
        self.level.store(level);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Back to the launch level.
    pub fn reset(&self) {
        self.set_level(self.launch);
    }

    /// Opens the log file anew (SIGUSR2), after it was moved away. Keeps the old one if that fails.
    pub fn reopen(&self) -> Result<(), LogError> {
        self.sink.reopen()
    }

    /// Whether there is a file to reopen.
    pub fn has_file(&self) -> bool {
        self.sink.has_file()
    }
}

#[derive(Debug, Clone)]
struct SharedLevel(Arc<AtomicU8>);

impl SharedLevel {
    fn new(level: LogLevel) -> Self {
        Self(Arc::new(AtomicU8::new(level as u8)))
    }

    fn load(&self) -> LogLevel {
        LogLevel::ALL.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    fn store(&self, level: LogLevel) {
        self.0.store(level as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
