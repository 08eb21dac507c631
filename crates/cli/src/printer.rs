//! `-output pretty|json`, and protobuf messages as SPIRE prints them in JSON.

use std::sync::OnceLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;
use steeple_config::{Flag, FlagSet};

use crate::{Failure, go};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    #[default]
    Pretty,
    Json,
}

impl Output {
    /// The flag every command that prints an answer has.
    pub fn flag(flags: &mut FlagSet) -> Flag<Self> {
        flags.value(
            "output",
            "Output format: pretty or json",
            Some("pretty".to_owned()),
            Self::default(),
            |value, text| {
                *value = Self::parse(text)?;
                Ok(())
            },
        )
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        match text.to_lowercase().as_str() {
            "json" => Ok(Self::Json),
            "pretty" | "prettyprint" => Ok(Self::Pretty),
            _ => {
                Err(format!("bad formatter flag: unknown format option: {}", steeple_config::go_quote(text)))
            }
        }
    }
}

/// A message of the type `name` (`spire.api.types.Entry`) as JSON: the proto's field names, sorted; fields that are not
/// set are there with their zero value, but an absent message is left out.
pub fn message(name: &str, message: &impl Message) -> Result<Value, Failure> {
    let descriptor = pool()?.get_message_by_name(name).ok_or_else(|| {
        Failure::new(format!("internal error: no message is called {name}; please report this"))
    })?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
    let mut value = message.serialize_with_options(serde_json::value::Serializer, &options)?;
    drop_nulls(&mut value);
    Ok(value)
}

/// Several messages are printed as a list, one as itself; one line.
pub fn json_line(mut values: Vec<Value>) -> String {
    let value = if values.len() == 1 { values.swap_remove(0) } else { Value::Array(values) };
    let mut line = String::new();
    write_json(&value, true, &mut line);
    line.push('\n');
    line
}

/// JSON as encoding/json writes it: no space, keys in order, numbers and strings Go's way.
pub fn write_json(value: &Value, html: bool, out: &mut String) {
    match value {
        Value::Number(number) if number.is_f64() => {
            out.push_str(&go::float(number.as_f64().unwrap_or_default()));
        }
        Value::String(text) => go::json_string(text, html, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json(item, html, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (i, (key, field)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                go::json_string(key, html, out);
                out.push(':');
                write_json(field, html, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

fn pool() -> Result<&'static DescriptorPool, Failure> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(steeple_proto::FILE_DESCRIPTOR_SET).ok()).as_ref().ok_or_else(
        || Failure::new("internal error: the API's descriptors do not decode; please report this"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeple_proto::spire::api::types;

    #[test]
    fn formats() {
        assert_eq!(Output::parse("jSoN"), Ok(Output::Json));
        assert_eq!(Output::parse("prettyprint"), Ok(Output::Pretty));
        assert_eq!(Output::parse("yaml"), Err("bad formatter flag: unknown format option: \"yaml\"".into()));
    }

    #[test]
    fn a_message_shows_zeroes_but_no_absent_message() {
        let agent =
            types::Agent { x509svid_expires_at: 5, attestation_type: "a<b".into(), ..Default::default() };
        assert_eq!(
            json_line(vec![message("spire.api.types.Agent", &agent).unwrap()]),
            "{\"agent_version\":\"\",\"attestation_type\":\"a\\u003cb\",\"banned\":false,\"can_reattest\":false,\
             \"selectors\":[],\"x509svid_expires_at\":\"5\",\"x509svid_serial_number\":\"\"}\n"
        );
    }

    #[test]
    fn enums_by_name_and_several_messages_as_a_list() {
        let level = types::LogLevel::Warn as i32;
        let logger = types::Logger { current_level: level, launch_level: level };
        let value = message("spire.api.types.Logger", &logger).unwrap();
        assert_eq!(
            json_line(vec![value.clone(), value]),
            "[{\"current_level\":\"WARN\",\"launch_level\":\"WARN\"},{\"current_level\":\"WARN\",\"launch_level\":\"WARN\"}]\n"
        );
    }

    #[test]
    fn nulls_go_at_every_depth() {
        let mut value = serde_json::json!({"a": null, "b": [null, {"c": null}, [null, 1]], "d": {"e": null}});
        drop_nulls(&mut value);
        assert_eq!(value, serde_json::json!({"b": [{}, [1]], "d": {}}));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert!(message("no.such.Message", &types::Logger::default()).is_err());
    }
}
