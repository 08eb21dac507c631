//! What may differ from Go, and nothing else.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use steeple_config::{Body, Item, Value};

use crate::oracle::Answer;
use crate::{shape, view};

pub struct Case {
    pub name: String,
    pub text: String,
}

impl Case {
    pub fn new(name: String, text: String) -> Self {
        Self { name, text }
    }
}

pub fn compare(case: &Case, answer: &Answer) -> Result<(), String> {
    let json = case.text.trim_start().starts_with('{');
    match (steeple_config::parse("x", &case.text), &answer.tree) {
        (Err(_), Err(_)) => Ok(()),
        // HCL 1 drops a key whose value is cut off at the end of the file; we refuse a truncated file.
        (Err(e), Ok(_)) if e.is_truncated() => Ok(()),
        // HCL 1 holds a code point in 32 signed bits; from `\U80000000` on it takes the last byte.
        (Err(e), Ok(_)) if e.to_string().ends_with("is above the last Unicode code point") => Ok(()),
        // HCL 1's JSON reader stops in silence at the first surprise; we refuse what is no JSON.
        (Err(_), Ok(_)) if json && !is_json(&case.text) => Ok(()),
        // Nor does it know JSON's escaped slash, or lists in lists.
        (Ok(_), Err(_)) if json && is_json(&case.text) => Ok(()),
        (Err(e), Ok(_)) => Err(format!("Go reads this, we say {e}")),
        (Ok(_), Err(e)) => Err(format!("we read this, Go says {e}")),
        (Ok(body), Ok(theirs)) => {
            let ours = view::tree(&body);
            let ours = if json { view::without_places(&ours) } else { ours };
            if ours != *theirs {
                return Err(format!("trees differ:\n  ours   {ours}\n  theirs {theirs}"));
            }
            compare_configs(case, &body, answer, json)
        }
    }
}

fn compare_configs(case: &Case, body: &Body, answer: &Answer, json: bool) -> Result<(), String> {
    let (ours, theirs) = match (shape::decode(body), &answer.config) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(_), Err(_)) => return Ok(()),
        // SPIRE refuses a second plugin of one type and name; the oracle stops at decoding.
        (Err(e), Ok(_)) if e.to_string().ends_with("declared more than once") => return Ok(()),
        (Err(e), Ok(_)) if e.to_string().ends_with("can be used") => return Ok(()),
        // JSON's null is "not set" here, whatever the type.
        (Ok(_), Err(_)) if json && case.text.contains("null") => return Ok(()),
        (Err(e), Ok(_)) => return Err(format!("Go decodes this, we say {e}")),
        (Ok(_), Err(e)) => return Err(format!("we decode this, Go says {e}")),
    };
    let mut theirs = theirs.clone();
    let unused: BTreeSet<String> = theirs["unused"]
        .take()
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .map(str::to_owned)
        .collect();
    compare_unused(body, &ours.unused, &unused)?;
    let mut ours = ours.config;
    for side in [&mut ours, &mut theirs] {
        normalize(side, json);
    }
    // Repeated `plugins` blocks: Go keeps the last, we all.
    let blocks = body.items().iter().filter(|i| i.keys[0].text.eq_ignore_ascii_case("plugins")).count();
    if blocks > 1 && !json {
        ours["plugins"].take();
        theirs["plugins"].take();
    }
    // A block among a list of structs: Go makes one struct of each attribute, we one of the block.
    if odd_statsd_block(body.items()) {
        ours["telemetry"]["Statsd"].take();
        theirs["telemetry"]["Statsd"].take();
    }
    if ours != theirs {
        return Err(format!("configurations differ:\n  ours   {ours}\n  theirs {theirs}"));
    }
    Ok(())
}

/// Go counts a bare label of a block's first item as an unknown key, and forgets what it found in the first of two
/// blocks of one name.
fn compare_unused(body: &Body, ours: &BTreeSet<String>, theirs: &BTreeSet<String>) -> Result<(), String> {
    let mut labels = BTreeSet::new();
    let mut keys = Vec::new();
    collect(body.items(), &mut labels, &mut keys);
    let repeated = |section: &str| keys.iter().filter(|k| k.eq_ignore_ascii_case(section)).count() > 1;
    let name = |unused: &str| unused.split_once('/').map_or(String::new(), |(_, key)| key.to_owned());
    let section =
        |unused: &str| unused.split_once('/').map_or(String::new(), |(section, _)| section.to_owned());
    let missed: Vec<_> = theirs.difference(ours).filter(|k| !labels.contains(&name(k))).collect();
    let extra: Vec<_> = ours.difference(theirs).filter(|k| !repeated(&section(k))).collect();
    if missed.is_empty() && extra.is_empty() {
        return Ok(());
    }
    Err(format!("unknown keys differ: ours {ours:?}, theirs {theirs:?}"))
}

fn odd_statsd_block(items: &[Item]) -> bool {
    items.iter().any(|item| match &item.value {
        Value::Object(object) if item.keys[0].text.eq_ignore_ascii_case("Statsd") => object.items.len() != 1,
        Value::Object(object) => odd_statsd_block(&object.items),
        _ => false,
    })
}

fn collect(items: &[Item], labels: &mut BTreeSet<String>, keys: &mut Vec<String>) {
    for item in items {
        keys.push(item.keys[0].text.clone());
        labels.extend(item.keys[1..].iter().map(|k| k.text.clone()));
        match &item.value {
            Value::Object(object) => collect(&object.items, labels, keys),
            Value::List(list) => {
                for value in &list.items {
                    if let Value::Object(object) = value {
                        collect(&object.items, labels, keys);
                    }
                }
            }
            Value::Literal(_) => {}
        }
    }
}

fn normalize(config: &mut Json, json: bool) {
    if let Some(plugins) = config["plugins"].as_object_mut() {
        for plugin in plugins.values_mut() {
            if json {
                plugin["data"] = view::without_places(&plugin["data"]);
            }
            if plugin["enabled"] == json!(true) {
                plugin["enabled"].take();
            }
        }
    }
    *config = view::without_empty(config);
    let mut fractions = vec![config];
    while let Some(value) = fractions.pop() {
        match value {
            Json::Object(map) => fractions.extend(map.values_mut()),
            // 0 and 0.0 are one.
            Json::Number(n) if n.is_f64() && n.as_f64() == n.as_i64().map(|i| i as f64) => {}
            Json::Number(n) => *value = json!(n.as_f64()),
            _ => {}
        }
    }
}

/// JSON by the book; a trailing comma is let pass.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<Json>(text).is_ok()
}
