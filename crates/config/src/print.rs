//! A tree back to HCL text: what an external plugin is configured with. Parsing it gives the same values.

use crate::ast::{Body, Item, Key, KeyKind, Literal, LiteralKind, Value};
use crate::quote::quote_hcl;

impl Body {
    /// HCL 1 text with these items, one to a line; empty for an empty body. JSON's nulls are left out: HCL has none.
    pub fn to_hcl(&self) -> String {
        let mut out = String::new();
        write_items(self.items(), 0, &mut out);
        out
    }
}

fn write_items(items: &[Item], depth: usize, out: &mut String) {
    for item in items {
        if matches!(&item.value, Value::Literal(Literal { kind: LiteralKind::Null, .. })) {
            continue;
        }
        indent(depth, out);
        for key in &item.keys {
            write_key(key, out);
            out.push(' ');
        }
        // An attribute has one key; what JSON folded into a labelled block is one.
        if item.assigned && item.keys.len() == 1 {
            out.push_str("= ");
        }
        write_value(&item.value, depth, out);
        out.push('\n');
    }
}

fn write_key(key: &Key, out: &mut String) {
    match key.kind {
        KeyKind::Bare => out.push_str(&key.text),
        KeyKind::Quoted | KeyKind::Json => quote_hcl(&key.text, out),
    }
}

fn write_value(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Literal(literal) => match literal.kind {
            LiteralKind::String | LiteralKind::Heredoc | LiteralKind::Null => quote_hcl(&literal.text, out),
            LiteralKind::Number | LiteralKind::Float | LiteralKind::Bool => out.push_str(&literal.text),
        },
        Value::List(list) => {
            out.push('[');
            for (i, item) in list.items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_value(item, depth, out);
            }
            out.push(']');
        }
        Value::Object(object) if object.items.is_empty() => out.push_str("{}"),
        Value::Object(object) => {
            out.push_str("{\n");
            write_items(&object.items, depth + 1, out);
            indent(depth, out);
            out.push('}');
        }
    }
}

fn indent(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

#[cfg(test)]
mod tests;
