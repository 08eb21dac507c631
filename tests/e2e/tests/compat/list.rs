//! docs/compat.list

use anyhow::{Context, Result, ensure};

pub struct Row {
    pub kind: String,
    pub name: String,
    pub how: String,
    pub not_applicable: bool,
}

pub fn read() -> Result<Vec<Row>> {
    let text = include_str!("../../../../docs/compat.list");
    let mut kind = None;
    let mut rows = Vec::new();
    for line in text.lines().map(str::trim_end) {
        if line.is_empty() || line.starts_with(['#', '@']) {
            continue;
        }
        if let Some(section) = line.strip_prefix("= ") {
            kind = section.split_once(" | ").map(|(kind, _)| kind.to_owned());
            continue;
        }
        let columns: Vec<&str> = line.split(" |").map(str::trim).collect();
        ensure!(matches!(columns.len(), 2 | 3), "docs/compat.list: two or three columns wanted: {line}");
        rows.push(Row {
            kind: kind.clone().context("docs/compat.list: no section yet")?,
            name: columns[0].to_owned(),
            how: columns[1].to_owned(),
            not_applicable: columns.len() == 3,
        });
    }
    Ok(rows)
}
