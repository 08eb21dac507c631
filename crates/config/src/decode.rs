//! Typed access to a block, with HCL 1's rules for what passes as what.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::GoDuration;
use crate::ast::{Body, Item, Key, KeyKind, Literal, LiteralKind, Object, Pos, Value};
use crate::error::{ConfigError, Problem};
use crate::number::parse_int;
use crate::unknown::{Strictness, UnknownKey, UnknownKeys};

impl Body {
    /// The whole body as a block to take keys from.
    pub fn block(&self) -> Block<'_> {
        let pos =
            self.items().first().and_then(|i| i.keys.first()).map_or(Pos { line: 1, column: 1 }, |k| k.pos);
        Block::new(self.file_arc(), String::new(), pos, entries(self.items()).collect())
    }
}

/// A block being decoded: each key asked for is crossed off, and [`Block::finish`] reports the rest.
#[derive(Debug)]
pub struct Block<'a> {
    file: &'a Arc<str>,
    /// Dotted, for messages; empty for a whole file.
    path: String,
    pos: Pos,
    entries: Vec<Entry<'a>>,
}

/// An item, possibly with its first keys already consumed.
#[derive(Debug, Clone)]
struct Entry<'a> {
    keys: &'a [Key],
    value: &'a Value,
    /// First in the block as written: HCL 1's search for unknown keys treats it differently.
    first: bool,
    used: bool,
}

impl<'a> Block<'a> {
    fn new(file: &'a Arc<str>, path: String, pos: Pos, entries: Vec<Entry<'a>>) -> Self {
        Self { file, path, pos, entries }
    }

    /// Where the block stands.
    pub fn pos(&self) -> Pos {
        self.pos
    }

    pub fn file(&self) -> &'a str {
        self.file
    }

    /// `server.ca_subject`; empty for a whole file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Is the key there (and not a JSON `null`)? Does not count as having read it.
    pub fn contains(&self, key: &str) -> bool {
        self.pos_of(key).is_some()
    }

    /// Where the key is first set.
    pub fn pos_of(&self, key: &str) -> Option<Pos> {
        let set = |e: &&Entry<'_>| e.is(key) && !(e.keys.len() == 1 && is_null(e.value));
        self.entries.iter().find(set).and_then(|e| e.keys.first()).map(|k| k.pos)
    }

    /// An error about the value of `key`, with its place: for checks that go beyond the type.
    pub fn invalid(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        let pos = self.pos_of(key).unwrap_or(self.pos);
        self.error(pos, Problem::Value { key: self.path_to(key), problem: problem.into() })
    }

    pub fn string(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        self.scalar(key, "a string", |literal| match literal.kind {
            LiteralKind::String | LiteralKind::Heredoc | LiteralKind::Number => {
                Some(Ok(literal.text.clone()))
            }
            _ => None,
        })
    }

    pub fn int(&mut self, key: &str) -> Result<Option<i64>, ConfigError> {
        self.scalar(key, "a whole number", |literal| match literal.kind {
            LiteralKind::Number | LiteralKind::String => Some(
                parse_int(&literal.text).map_err(|_| "is not a whole number that fits 64 bits".to_owned()),
            ),
            _ => None,
        })
    }

    /// A TCP port. 0 is allowed here; most options take it for "not set".
    pub fn port(&mut self, key: &str) -> Result<Option<u16>, ConfigError> {
        match self.int(key)? {
            None => Ok(None),
            Some(number) => match u16::try_from(number) {
                Ok(port) => Ok(Some(port)),
                Err(_) => Err(self.invalid(key, format!("port {number} is out of range (0 to 65535)"))),
            },
        }
    }

    pub fn bool(&mut self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.scalar(key, "true or false", |literal| {
            (literal.kind == LiteralKind::Bool).then(|| Ok(literal.text == "true"))
        })
    }

    pub fn float(&mut self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.scalar(key, "a number", |literal| match literal.kind {
            LiteralKind::Number | LiteralKind::Float => {
                Some(literal.text.parse().map_err(|_| "is not a decimal number".to_owned()))
            }
            _ => None,
        })
    }

    pub fn duration(&mut self, key: &str) -> Result<Option<GoDuration>, ConfigError> {
        match self.string(key)? {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|e| self.invalid(key, format!("{e}"))),
        }
    }

    /// A list of strings. A key that is repeated adds to the list.
    pub fn strings(&mut self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let mut found: Option<Vec<String>> = None;
        for value in self.values(key, "a list")? {
            let Value::List(list) = value else {
                return Err(self.wrong_type(key, value, "a list"));
            };
            let strings = found.get_or_insert_default();
            for (index, item) in list.items.iter().enumerate() {
                match item {
                    Value::Literal(Literal {
                        kind: LiteralKind::String | LiteralKind::Heredoc | LiteralKind::Number,
                        text,
                        ..
                    }) => strings.push(text.clone()),
                    other => return Err(self.wrong_type(&format!("{key}[{index}]"), other, "a string")),
                }
            }
        }
        Ok(found)
    }

    /// A block of which every key is free to choose and every value a string. The last of a repeated key counts.
    pub fn string_map(&mut self, key: &str) -> Result<Option<BTreeMap<String, String>>, ConfigError> {
        let Some(block) = self.block(key)? else {
            return Ok(None);
        };
        let mut map = BTreeMap::new();
        for entry in &block.entries {
            // Keys are data here: their case counts.
            let only = block.entries.iter().filter(|e| e.name() == entry.name()).cloned().collect();
            let mut one = Block::new(block.file, block.path.clone(), block.pos, only);
            if let Some(value) = one.string(entry.name())? {
                map.insert(entry.name().to_owned(), value);
            }
        }
        Ok(Some(map))
    }

    /// One block. If it is repeated its parts are read as one.
    pub fn block(&mut self, key: &str) -> Result<Option<Block<'a>>, ConfigError> {
        let found = self.inside(key)?;
        Ok(found.map(|(pos, entries)| Block::new(self.file, self.path_to(key), pos, entries)))
    }

    /// Repeated blocks, or a list of objects, each by itself.
    pub fn blocks(&mut self, key: &str) -> Result<Vec<Block<'a>>, ConfigError> {
        let file = self.file;
        let mut blocks = Vec::new();
        let matches = self.take(key);
        for entry in &matches {
            let path = format!("{}[{}]", self.path_to(key), blocks.len());
            let object = |object: &'a Object| {
                Block::new(file, path.clone(), object.pos, entries(&object.items).collect())
            };
            match (entry.keys, entry.value) {
                ([_], Value::Object(found)) => blocks.push(object(found)),
                ([_], Value::List(list)) => {
                    for item in &list.items {
                        let Value::Object(found) = item else {
                            return Err(self.wrong_type(key, item, "a block"));
                        };
                        let mut block = object(found);
                        block.path = format!("{}[{}]", self.path_to(key), blocks.len());
                        blocks.push(block);
                    }
                }
                ([_], value) if is_null(value) => {}
                ([_], value) => return Err(self.wrong_type(key, value, "a block")),
                // A label that nobody asked for: HCL 1 skips it. JSON has no labels, there it is a nested key.
                ([_, label], Value::Object(found)) if label.kind != KeyKind::Json => {
                    blocks.push(object(found));
                }
                (keys, value) => {
                    let inner = Entry { keys: &keys[1..], value, first: true, used: false };
                    blocks.push(Block::new(file, path, keys[0].pos, vec![inner]));
                }
            }
        }
        Ok(blocks)
    }

    /// Blocks by label, in file order: `key "label" { … }` or `key { "label" { … } }`. Parts with one label are
    /// read as one.
    pub fn labelled(&mut self, key: &str) -> Result<Vec<(String, Block<'a>)>, ConfigError> {
        let Some((_, found)) = self.inside(key)? else {
            return Ok(Vec::new());
        };
        let path = self.path_to(key);
        let mut blocks: Vec<(String, Block<'a>)> = Vec::new();
        for entry in found {
            let label = entry.keys[0].text.clone();
            let known = blocks.iter().position(|(known, _)| *known == label);
            let at = known.unwrap_or(blocks.len());
            if known.is_none() {
                let path = format!("{path}[{label:?}]");
                blocks.push((label, Block::new(self.file, path, entry.keys[0].pos, Vec::new())));
            }
            let (label, block) = &mut blocks[at];
            match (entry.keys, entry.value) {
                ([_], Value::Object(object)) => block.entries.extend(entries(&object.items)),
                ([_], value) if is_null(value) => {}
                ([_], value) => return Err(self.wrong_type(&format!("{key}[{label:?}]"), value, "a block")),
                (keys, value) => {
                    let first = block.entries.is_empty();
                    block.entries.push(Entry { keys: &keys[1..], value, first, used: false });
                }
            }
        }
        Ok(blocks)
    }

    /// The inside of a block as a tree of its own, to be decoded by whoever knows its keys.
    pub fn body(&mut self, key: &str) -> Result<Option<Body>, ConfigError> {
        let file = Arc::clone(self.file);
        let items = self.block(key)?.map(|block| block.entries.iter().map(Entry::to_item).collect());
        Ok(items.map(|items| Body::new(file, items)))
    }

    /// Reports every key that was not asked for under `section`, SPIRE's name for the block in its log.
    pub fn finish(self, strictness: Strictness, section: &str, unknown: &mut UnknownKeys) {
        for entry in self.entries.iter().filter(|e| !e.used) {
            let Some(key) = entry.keys.first() else { continue };
            // hcl.decodeStruct passes over quoted keys, and over labelled items but the first.
            let noticed = key.kind != KeyKind::Quoted && (entry.first || entry.keys.len() == 1);
            unknown.push(UnknownKey {
                file: Arc::clone(self.file),
                section: section.to_owned(),
                key: key.text.clone(),
                pos: key.pos,
                refused: noticed && strictness == Strictness::Strict,
            });
        }
    }

    /// What the blocks called `key` hold, in file order, and where the first stands. A label is a key inside.
    fn inside(&mut self, key: &str) -> Result<Option<(Pos, Vec<Entry<'a>>)>, ConfigError> {
        let mut found: Option<(Pos, Vec<Entry<'a>>)> = None;
        let mut first = true;
        for entry in self.take(key) {
            let pos = entry.keys.first().map_or(self.pos, |k| k.pos);
            match (entry.keys, entry.value) {
                ([_], Value::Object(object)) => {
                    found.get_or_insert((pos, Vec::new())).1.extend(entries(&object.items));
                }
                ([_], value) if is_null(value) => {}
                ([] | [_], value) => return Err(self.wrong_type(key, value, "a block")),
                ([_, keys @ ..], value) => {
                    let inner = Entry { keys, value, first, used: false };
                    found.get_or_insert((pos, Vec::new())).1.push(inner);
                    first = false;
                }
            }
        }
        Ok(found)
    }

    /// The values of an attribute, in file order; labelled blocks under its name are a type error.
    fn values(&mut self, key: &str, expected: &'static str) -> Result<Vec<&'a Value>, ConfigError> {
        let matches = self.take(key);
        if let Some(entry) = matches.iter().find(|e| e.keys.len() > 1) {
            let problem = Problem::Type { key: self.path_to(key), expected, found: "a block" };
            return Err(self.error(entry.keys[0].pos, problem));
        }
        Ok(matches.iter().map(|e| e.value).filter(|v| !is_null(v)).collect())
    }

    /// Every occurrence must have the right type; the last one counts.
    fn scalar<T>(
        &mut self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(&Literal) -> Option<Result<T, String>>,
    ) -> Result<Option<T>, ConfigError> {
        let mut last = None;
        for value in self.values(key, expected)? {
            let converted = match value {
                Value::Literal(literal) => convert(literal),
                _ => None,
            };
            last = Some(match converted {
                Some(Ok(found)) => found,
                Some(Err(problem)) => {
                    return Err(self.error(value.pos(), Problem::Value { key: self.path_to(key), problem }));
                }
                None => return Err(self.wrong_type(key, value, expected)),
            });
        }
        Ok(last)
    }

    /// Crosses off and gives what is called `key`, in any case.
    fn take(&mut self, key: &str) -> Vec<Entry<'a>> {
        let mut taken = Vec::new();
        for entry in self.entries.iter_mut().filter(|e| e.is(key)) {
            entry.used = true;
            taken.push(entry.clone());
        }
        taken
    }

    fn path_to(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn wrong_type(&self, key: &str, value: &Value, expected: &'static str) -> ConfigError {
        let problem = Problem::Type { key: self.path_to(key), expected, found: value.describe() };
        self.error(value.pos(), problem)
    }

    fn error(&self, pos: Pos, problem: Problem) -> ConfigError {
        ConfigError::new(self.file, pos, problem)
    }
}

impl Entry<'_> {
    fn name(&self) -> &str {
        self.keys.first().map_or("", |k| &k.text)
    }

    fn is(&self, key: &str) -> bool {
        self.name().eq_ignore_ascii_case(key)
    }

    fn to_item(&self) -> Item {
        let assigned = !matches!(self.value, Value::Object(_));
        Item { keys: self.keys.to_vec(), assigned, value: self.value.clone() }
    }
}

fn entries(items: &[Item]) -> impl Iterator<Item = Entry<'_>> {
    items.iter().enumerate().map(|(i, item)| Entry {
        keys: &item.keys,
        value: &item.value,
        first: i == 0,
        used: false,
    })
}

fn is_null(value: &Value) -> bool {
    matches!(value, Value::Literal(Literal { kind: LiteralKind::Null, .. }))
}

#[cfg(test)]
mod tests;
