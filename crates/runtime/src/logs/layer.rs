//! From `tracing` events to lines.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::{
    LogError, LogFormat, LogLevel, SharedLevel,
    layout::{self, Value},
};

/// Our crates; of others only warnings and errors are written.
const OURS: [&str; 3] = ["steeple", "spire", "oidc"];

/// Writes events the way logrus does.
pub(super) struct Logrus {
    format: LogFormat,
    source_location: bool,
    level: SharedLevel,
    sink: std::sync::Arc<Sink>,
}

impl Logrus {
    pub fn new(
        format: LogFormat,
        source_location: bool,
        level: SharedLevel,
        sink: std::sync::Arc<Sink>,
    ) -> Self {
        Self { format, source_location, level, sink }
    }

    fn is_on(&self, metadata: &Metadata<'_>) -> bool {
        let ours = OURS.iter().any(|prefix| metadata.target().starts_with(prefix));
        (ours || *metadata.level() <= Level::WARN) && *metadata.level() <= self.level.load().filter()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Logrus {
    // Decided once for each place in the code, and again when the level changes: what is off costs one load.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_on(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.is_on(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.load().filter())
    }

    fn on_new_span(&self, attrs: &span::Attributes<'_>, id: &span::Id, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id) {
            let mut fields = Fields::default();
            attrs.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        // From the outermost span inwards: the nearest says the last word.
        for span in
            ctx.event_scope(event).into_iter().flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.0.extend(of_span.0.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        event.record(&mut fields);
        let message = match fields.0.remove("message") {
            Some(Value::Text(message)) => message,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        fields.unfold();
        if self.source_location {
            fields.add_location(event.metadata());
        }
        let line = layout::line(self.format, level_of(event.metadata()), &message, &fields.0);
        self.sink.write(line.as_bytes());
    }
}

fn level_of(metadata: &Metadata<'_>) -> LogLevel {
    match *metadata.level() {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    }
}

/// Fields by name, as logrus sorts them.
#[derive(Default)]
struct Fields(layout::Fields);

impl Fields {
    /// A field `fields` with a JSON object in it stands for the object's members: what callers use whose fields have
    /// names known only at run time, such as an audit log.
    fn unfold(&mut self) {
        use serde_json::Value as Json;
        let Some(Value::Text(text)) = self.0.get("fields") else { return };
        let Ok(Json::Object(members)) = serde_json::from_str(text) else { return };
        self.0.remove("fields");
        for (name, value) in members {
            let value = match value {
                Json::String(text) => Value::Text(text),
                Json::Bool(on) => Value::Bool(on),
                Json::Number(number) => match number.as_i64() {
                    Some(int) => Value::Int(int.into()),
                    None => Value::Text(number.to_string()),
                },
                other => Value::Text(other.to_string()),
            };
            self.0.insert(name.into(), value);
        }
    }

    fn add_location(&mut self, metadata: &'static Metadata<'static>) {
        let path = metadata.file().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        let line = metadata.line().unwrap_or_default();
        self.0.insert("file".into(), Value::Text(format!("{file}:{line}")));
        self.0.insert("func".into(), Value::Text(metadata.module_path().unwrap_or_default().to_owned()));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), Value::Float(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), Value::Int(i128::from(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), Value::Int(i128::from(value)));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.0.insert(field.name().into(), Value::Int(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), Value::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), Value::Text(value.to_owned()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.insert(field.name().into(), Value::Text(value.to_string()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), Value::Text(format!("{value:?}")));
    }
}

/// Where lines go. A line that cannot be written is lost, never an error: standard output may be closed, a disk full.
pub(super) struct Sink {
    out: Mutex<Box<dyn Write + Send>>,
    path: Option<PathBuf>,
}

impl Sink {
    pub fn open(path: Option<PathBuf>) -> Result<Self, LogError> {
        let out: Box<dyn Write + Send> = match &path {
            Some(path) => Box::new(open(path)?),
            None => Box::new(io::stdout()),
        };
        Ok(Self { out: Mutex::new(out), path })
    }

    #[cfg(test)]
    pub fn to(out: Box<dyn Write + Send>) -> Self {
        Self { out: Mutex::new(out), path: None }
    }

    pub fn reopen(&self) -> Result<(), LogError> {
        if let Some(path) = &self.path {
            let file = open(path)?;
            *self.out.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(file);
        }
        Ok(())
    }

    pub fn has_file(&self) -> bool {
        self.path.is_some()
    }

    fn write(&self, line: &[u8]) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(line).and_then(|()| out.flush());
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("path", &self.path).finish_non_exhaustive()
    }
}

fn open(path: &std::path::Path) -> Result<File, LogError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .map_err(|source| LogError::File { path: path.to_owned(), source })
}
