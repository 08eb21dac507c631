//! HCL 1's reading of JSON: `{"a": {"b": {…}}}` is the block `a "b" {…}`, and a list of objects is a repeated block.

use crate::ast::{Item, Value};

/// Outermost first: what is folded into its parent is not looked at again as a parent.
pub(super) fn flatten(items: Vec<Item>) -> Vec<Item> {
    let mut out = Vec::with_capacity(items.len());
    // A stack, next item on top.
    let mut waiting: Vec<Item> = items;
    waiting.reverse();
    while let Some(item) = waiting.pop() {
        let Item { keys, assigned, value } = item;
        match value {
            Value::Object(object) if !object.items.is_empty() && object.items.iter().all(holds_object) => {
                waiting.extend(object.items.into_iter().rev().map(|inner| Item {
                    keys: keys.iter().cloned().chain(inner.keys).collect(),
                    assigned,
                    value: inner.value,
                }));
            }
            Value::List(list) if !list.items.is_empty() && list.items.iter().all(is_object) => {
                waiting.extend(list.items.into_iter().rev().map(|value| Item {
                    keys: keys.clone(),
                    assigned,
                    value,
                }));
            }
            value => out.push(Item { keys, assigned, value }),
        }
    }
    for item in &mut out {
        inside(&mut item.value);
    }
    out
}

fn inside(value: &mut Value) {
    match value {
        Value::Literal(_) => {}
        Value::List(list) => list.items.iter_mut().for_each(inside),
        Value::Object(object) => object.items = flatten(std::mem::take(&mut object.items)),
    }
}

fn holds_object(item: &Item) -> bool {
    is_object(&item.value)
}

fn is_object(value: &Value) -> bool {
    matches!(value, Value::Object(_))
}
