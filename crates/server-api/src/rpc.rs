//! One call: its method, caller, ground of authorization, log fields and audit line.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use steeple_datastore::model::Entry;
use steeple_proto::spire::api::types;
use steeple_runtime::grpc::code_name;
use steeple_spiffe::SpiffeId;
use tonic::{Code, Status};
use tracing::Level;

use crate::access::Method;
use crate::authorize::Authorized;
use crate::caller::Caller;
use crate::error::{ApiError, log_text, to_item_status, to_status};
use crate::state::ServerState;

/// Put into each request's extensions by [`crate::layer`]. Clones are the same call.
#[derive(Clone, Debug)]
pub struct Rpc(Arc<Call>);

#[derive(Debug)]
struct Call {
    method: &'static Method,
    caller: Caller,
    authorized: Authorized,
    request_id: RequestId,
    /// On the monotonic clock.
    deadline: Option<Duration>,
    state: Arc<ServerState>,
    /// Fields of the audit line that handlers add while they learn; `None` if there is no audit log.
    audit: Option<Mutex<Fields>>,
}

/// What a call's log lines have in common. Drawn with the first of them: most calls have none.
#[derive(Debug, Default)]
pub(crate) struct RequestId(OnceLock<String>);

impl RequestId {
    fn as_str(&self) -> &str {
        self.0.get_or_init(|| uuid::Uuid::new_v4().to_string())
    }
}

impl Rpc {
    pub(crate) fn new(
        method: &'static Method,
        caller: Caller,
        authorized: Authorized,
        deadline: Option<Duration>,
        state: Arc<ServerState>,
    ) -> Self {
        let audit = state.audit.then(|| Mutex::new(Fields::default()));
        let request_id = RequestId::default();
        Self(Arc::new(Call { method, caller, authorized, request_id, deadline, state, audit }))
    }

    /// The call a request belongs to. SPIRE's wording for what cannot happen.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(|| Status::internal("request context missing"))
    }

    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// The SPIFFE ID of the caller; agents and downstream servers always have one.
    pub fn caller_id(&self) -> Result<&SpiffeId, Status> {
        self.0.caller.id().ok_or_else(|| Status::internal("caller ID missing from request context"))
    }

    /// The entry that made the caller a downstream server.
    pub fn downstream_entry(&self) -> Option<&Arc<Entry>> {
        match &self.0.authorized {
            Authorized::Downstream(entry) => Some(entry),
            _ => None,
        }
    }

    /// Draws from the method's bucket; `what` is the start of SPIRE's message on refusal.
    pub async fn limit(&self, what: &str, count: usize) -> Result<(), Status> {
        let now = self.0.state.clock.monotonic();
        let patience = self.0.deadline.map(|deadline| deadline.saturating_sub(now));
        self.0.state.limits.wait(self.0.method, &self.0.caller, count, patience).await.map_err(|status| {
            let refused = Status::new(status.code(), format!("{what}: {}", status.message()));
            self.log(Level::ERROR, &capital(what), Fields::default().with("error", status.message()));
            refused
        })
    }

    /// Logs a refusal and makes it the call's status.
    pub fn refuse<E: ApiError>(&self, error: E) -> Status {
        self.refuse_with(error, Fields::default())
    }

    /// See [`Rpc::refuse`]; with fields that the handler learned.
    pub fn refuse_with<E: ApiError>(&self, error: E, fields: Fields) -> Status {
        self.log_refusal(&error, fields);
        to_status(&error)
    }

    /// Logs a refusal of one item of a batch and makes it the item's status.
    pub fn refuse_item<E: ApiError>(&self, error: &E, fields: Fields) -> types::Status {
        self.log_refusal(error, fields);
        to_item_status(error)
    }

    fn log_refusal<E: ApiError>(&self, error: &E, fields: Fields) {
        if !tracing::enabled!(Level::ERROR) {
            return;
        }
        let (text, cause) = log_text(error);
        self.log(Level::ERROR, &text, fields.with_some("error", cause));
    }

    /// One log line with the call's fields. Nothing is built for a level that is off.
    pub fn log(&self, level: Level, message: &str, fields: Fields) {
        if enabled(level) {
            emit(level, message, &self.call_fields().and(fields));
        }
    }

    /// Remembers fields for the audit line.
    pub fn audit_fields(&self, fields: impl FnOnce() -> Fields) {
        if let Some(kept) = &self.0.audit {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.0.extend(fields().0);
        }
    }

    /// The audit line of a call that succeeded.
    pub fn audit(&self) {
        self.audit_line(Code::Ok, "", true, Fields::default);
    }

    /// See [`Rpc::audit`]; with fields known only at the end.
    pub fn audit_with(&self, fields: impl FnOnce() -> Fields) {
        self.audit_line(Code::Ok, "", true, fields);
    }

    /// The audit line of a call that failed; [`crate::layer`] writes it.
    pub(crate) fn audit_error(&self, status: &Status) {
        self.audit_line(status.code(), status.message(), true, Fields::default);
    }

    /// The audit line of one item of a batch.
    pub fn audit_item(&self, status: &types::Status, fields: impl FnOnce() -> Fields) {
        self.audit_line(Code::from_i32(status.code), &status.message, false, fields);
    }

    // Message and fields: spire.md §1.8.
    fn audit_line(&self, code: Code, message: &str, with_kept: bool, fields: impl FnOnce() -> Fields) {
        let Some(kept) = &self.0.audit else { return };
        let mut all = self.call_fields().and(self.process_fields()).with("type", "audit");
        if with_kept {
            all = all.and(kept.lock().unwrap_or_else(PoisonError::into_inner).clone());
        }
        all = if code == Code::Ok {
            all.with("status", "success")
        } else {
            all.with("status", "error").with("status_code", code_name(code)).with("status_message", message)
        };
        emit(Level::INFO, "API accessed", &all.and(fields()));
    }

    fn call_fields(&self) -> Fields {
        let call = &*self.0;
        let (authorized_as, authorized_via) = call.authorized.log_fields();
        let mut fields = Fields::for_call(call.method, &call.caller, &call.request_id);
        fields.push("authorized_as", authorized_as);
        fields.push("authorized_via", authorized_via);
        fields
    }

    /// Which process called over the Unix socket.
    fn process_fields(&self) -> Fields {
        let Caller::Local(peer) = &self.0.caller else { return Fields::default() };
        let fields = Fields::default().with("caller_uid", peer.uid).with("caller_gid", peer.gid);
        // Fails in a container without hostPID; SPIRE leaves the path out then.
        match peer.exe() {
            Ok(path) => fields.with("caller_path", path.display().to_string()),
            Err(_) => fields,
        }
    }
}

fn capital(text: &str) -> String {
    let mut out = text.to_owned();
    if let Some(first) = out.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    out
}

/// Log fields whose names are known only when they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(Cow<'static, str>, Value)>);

/// A log field's value, typed as the JSON layout shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
    Bool(bool),
}

impl Fields {
    pub(crate) fn for_call(method: &'static Method, caller: &Caller, request_id: &RequestId) -> Self {
        let mut fields = Self::default();
        fields.push("service", method.service);
        fields.push("method", method.name);
        fields.push("request_id", request_id.as_str());
        fields.push("subsystem_name", "api");
        if let Caller::Remote { addr, svid } = caller {
            fields.push("caller_addr", addr.to_string());
            if let Some(svid) = svid {
                fields.push("caller_id", svid.id.as_str());
            }
        }
        fields
    }

    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        self.0.push((name.into(), value.into()));
    }

    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.push(name, value);
        self
    }

    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Every name with `prefix` before it.
    #[must_use]
    pub fn prefixed(self, prefix: &str) -> Self {
        Self(self.0.into_iter().map(|(name, value)| (format!("{prefix}{name}").into(), value)).collect())
    }

    /// Later fields win over earlier ones of the same name.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (name, value) in other.0 {
            match self.0.iter_mut().find(|(had, _)| *had == name) {
                Some(slot) => slot.1 = value,
                None => self.0.push((name, value)),
            }
        }
        self
    }

    /// A JSON object, the form in which the log layer takes them.
    fn to_json(&self) -> String {
        let object = self.0.iter().map(|(name, value)| {
            let value = match value {
                Value::Text(text) => serde_json::Value::from(text.as_str()),
                Value::Number(number) => serde_json::Value::from(*number),
                Value::Bool(on) => serde_json::Value::from(*on),
            };
            (name.to_string(), value)
        });
        serde_json::Value::Object(object.collect()).to_string()
    }

    /// The value of a field as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(had, _)| had == name).map(|(_, value)| match value {
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(on) => on.to_string(),
        })
    }
}

macro_rules! from {
    ($($t:ty => |$v:ident| $e:expr),* $(,)?) => { $(impl From<$t> for Value { fn from($v: $t) -> Self { $e } })* };
}
from! {
    &str => |v| Self::Text(v.to_owned()),
    &String => |v| Self::Text(v.clone()),
    String => |v| Self::Text(v),
    i32 => |v| Self::Number(v.into()),
    u32 => |v| Self::Number(v.into()),
    i64 => |v| Self::Number(v),
    u64 => |v| i64::try_from(v).map_or_else(|_| Self::Text(v.to_string()), Self::Number),
    bool => |v| Self::Bool(v),
}

/// Seconds since 1970 as RFC 3339 in UTC, the form of SPIRE's expiration fields.
pub fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

fn enabled(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(Level::ERROR),
        Level::WARN => tracing::enabled!(Level::WARN),
        Level::INFO => tracing::enabled!(Level::INFO),
        Level::DEBUG => tracing::enabled!(Level::DEBUG),
        _ => tracing::enabled!(Level::TRACE),
    }
}

/// One line with fields named at run time: the log layer unfolds `fields`.
pub(crate) fn emit(level: Level, message: &str, fields: &Fields) {
    let fields = fields.to_json();
    match level {
        Level::ERROR => tracing::error!(fields, "{message}"),
        Level::WARN => tracing::warn!(fields, "{message}"),
        Level::INFO => tracing::info!(fields, "{message}"),
        Level::DEBUG => tracing::debug!(fields, "{message}"),
        _ => tracing::trace!(fields, "{message}"),
    }
}
