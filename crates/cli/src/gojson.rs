//! A JSON file as Go's encoding/json takes it: its errors, keys in any case, `null` for nothing, unknown keys ignored.

use serde_json::Value;

use crate::Failure;

mod scanner;

/// The text as a value, or Go's words for what is wrong with it.
pub fn parse(data: &[u8]) -> Result<Value, Failure> {
    scanner::check(data).map_err(Failure::new)?;
    // Go replaces what is not UTF-8 inside a string.
    let text = String::from_utf8_lossy(data);
    serde_json::from_str(&text).map_err(Failure::from)
}

/// A JSON object that is decoded into a Go struct called `name`; `path` leads to it from the top.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    value: Option<&'a serde_json::Map<String, Value>>,
    name: &'a str,
    path: &'a str,
}

impl<'a> Object<'a> {
    /// The top of a document. `null` is an empty object.
    pub fn top(value: &'a Value, name: &'a str) -> Result<Self, Failure> {
        Self::new(value, name, "", "").map_err(|kind| {
            Failure::new(format!("json: cannot unmarshal {kind} into Go value of type {name}"))
        })
    }

    fn new(value: &'a Value, name: &'a str, path: &'a str, _field: &str) -> Result<Self, &'static str> {
        let name = name.rsplit('.').next().unwrap_or(name);
        match value {
            Value::Null => Ok(Self { value: None, name, path }),
            Value::Object(fields) => Ok(Self { value: Some(fields), name, path }),
            other => Err(kind(other)),
        }
    }

    /// A string; empty when there is none.
    pub fn string(&self, key: &str) -> Result<String, Failure> {
        match self.find(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(self.mismatch(key, other, "string")),
        }
    }

    pub fn bool(&self, key: &str) -> Result<bool, Failure> {
        match self.find(key) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(self.mismatch(key, other, "bool")),
        }
    }

    pub fn int32(&self, key: &str) -> Result<i32, Failure> {
        self.int(key, "int32")
    }

    pub fn int64(&self, key: &str) -> Result<i64, Failure> {
        self.int(key, "int64")
    }

    fn int<T: TryFrom<i64> + Default>(&self, key: &str, go_type: &str) -> Result<T, Failure> {
        match self.find(key) {
            None => Ok(T::default()),
            Some(other) => other
                .as_i64()
                .and_then(|number| T::try_from(number).ok())
                .ok_or_else(|| self.mismatch(key, other, go_type)),
        }
    }

    /// What stands there as it is, `null` too (Go's `json.RawMessage`).
    pub fn raw(&self, key: &str) -> Option<&'a Value> {
        self.find_any(key)
    }

    /// Strings; a `null` among them is an empty one.
    pub fn strings(&self, key: &str) -> Result<Vec<String>, Failure> {
        self.items(key, "[]string")?
            .iter()
            .map(|item| match item {
                Value::Null => Ok(String::new()),
                Value::String(text) => Ok(text.clone()),
                other => Err(self.mismatch(key, other, "string")),
            })
            .collect()
    }

    /// The items of a list of structs; `None` stands for `null`.
    pub fn objects<T>(
        &self,
        key: &str,
        go_type: &str,
        mut read: impl FnMut(Option<Object<'_>>) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let path = self.path_to(key);
        self.items(key, &format!("[]*{go_type}"))?
            .iter()
            .map(|item| {
                let object =
                    Object::new(item, go_type, &path, key).map_err(|_| self.mismatch(key, item, go_type))?;
                read(object.value.is_some().then_some(object))
            })
            .collect()
    }

    /// A nested struct, unless it is absent or `null`.
    pub fn object<T>(
        &self,
        key: &str,
        go_type: &str,
        read: impl FnOnce(Object<'_>) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        let Some(value) = self.find(key) else { return Ok(None) };
        let path = self.path_to(key);
        let object =
            Object::new(value, go_type, &path, key).map_err(|_| self.mismatch(key, value, go_type))?;
        read(object).map(Some)
    }

    fn items(&self, key: &str, go_type: &str) -> Result<&'a [Value], Failure> {
        match self.find(key) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(self.mismatch(key, other, go_type)),
        }
    }

    /// The exact key, else the last one that differs in case only. A `null` is nothing.
    fn find(&self, key: &str) -> Option<&'a Value> {
        self.find_any(key).filter(|found| !found.is_null())
    }

    fn find_any(&self, key: &str) -> Option<&'a Value> {
        let fields = self.value?;
        fields.get(key).or_else(|| {
            fields
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(key))
                .map(|(_, value)| value)
                .next_back()
        })
    }

    fn path_to(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn mismatch(&self, key: &str, value: &Value, go_type: &str) -> Failure {
        let kind = match value {
            Value::Number(number) if go_type.starts_with("int") => format!("number {number}"),
            other => kind(other).to_owned(),
        };
        let (name, path) = (self.name, self.path_to(key));
        Failure::new(format!(
            "json: cannot unmarshal {kind} into Go struct field {name}.{path} of type {go_type}"
        ))
    }
}

/// What encoding/json calls a value.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests;
