//! Running templates over data.

use super::Value;
use super::functions;
use super::parse::{Node, Operand, Pipeline};

/// Far more than a SPIFFE ID may have (SPIFFE-ID §2.3).
const MAX_OUTPUT: usize = 4096;

pub(super) fn run(nodes: &[Node], data: &Value) -> Result<String, String> {
    let mut run = Run { data, variables: Vec::new(), out: String::new() };
    run.nodes(nodes, data)?;
    Ok(run.out)
}

struct Run<'a> {
    data: &'a Value,
    variables: Vec<(String, Value)>,
    out: String,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let scope = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => self.print(text)?,
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.set.is_empty() {
                        self.print(&value.to_string())?;
                    }
                }
                Node::If { condition, then, otherwise } => {
                    let outer = self.variables.len();
                    let value = self.pipeline(condition, dot)?;
                    self.nodes(if value.is_true() { then } else { otherwise }, dot)?;
                    self.variables.truncate(outer);
                }
                Node::With { value, then, otherwise } => {
                    let outer = self.variables.len();
                    let value = self.pipeline(value, dot)?;
                    if value.is_true() {
                        self.nodes(then, &value)?;
                    } else {
                        self.nodes(otherwise, dot)?;
                    }
                    self.variables.truncate(outer);
                }
                Node::Range { over, body, otherwise } => self.range(over, body, otherwise, dot)?,
            }
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn range(
        &mut self,
        over: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), String> {
        let outer = self.variables.len();
        let items: Vec<(Value, Value)> = match self.commands(&over.commands, dot)? {
            Value::List(items) => {
                items.into_iter().enumerate().map(|(i, v)| (Value::Int(i as i64), v)).collect()
            }
            Value::Map(items) => items.into_iter().map(|(k, v)| (Value::Str(k), v)).collect(),
            Value::Nil => Vec::new(),
            other => return Err(format!("range can't iterate over a {}", other.kind())),
        };
        if items.is_empty() {
            self.nodes(otherwise, dot)?;
        }
        for (key, item) in items {
            match over.set.as_slice() {
                [value] => self.variables.push((value.clone(), item.clone())),
                [index, value] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((value.clone(), item.clone()));
                }
                _ => {}
            }
            self.nodes(body, &item)?;
            self.variables.truncate(outer);
        }
        Ok(())
    }

    fn print(&mut self, text: &str) -> Result<(), String> {
        if self.out.len() + text.len() > MAX_OUTPUT {
            return Err(format!("the path is longer than {MAX_OUTPUT} bytes"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let value = self.commands(&pipeline.commands, dot)?;
        for name in &pipeline.set {
            if pipeline.declares {
                self.variables.push((name.clone(), value.clone()));
            } else if let Some(known) = self.variables.iter_mut().rev().find(|known| known.0 == *name) {
                known.1 = value.clone();
            }
        }
        Ok(value)
    }

    fn commands(&mut self, commands: &[Vec<Operand>], dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for command in commands {
            last = Some(match command.as_slice() {
                [Operand::Function(name), operands @ ..] => self.call(name, operands, last, dot)?,
                [operand, ..] => self.operand(operand, dot)?,
                [] => return Err("empty command".to_owned()),
            });
        }
        last.ok_or_else(|| "empty pipeline".to_owned())
    }

    fn call(
        &mut self,
        name: &str,
        operands: &[Operand],
        last: Option<Value>,
        dot: &Value,
    ) -> Result<Value, String> {
        // Go evaluates the arguments of these only as far as they matter.
        if matches!(name, "and" | "or") {
            let mut value = Value::Nil;
            for operand in operands {
                value = self.operand(operand, dot)?;
                if value.is_true() == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(last.unwrap_or(value));
        }
        let mut arguments =
            operands.iter().map(|operand| self.operand(operand, dot)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(last);
        functions::call(name, arguments).map_err(|error| format!("error calling {name}: {error}"))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let follow = |value: &Value, path: &[String]| {
            path.iter().try_fold(value.clone(), |value, name| value.field(name).cloned())
        };
        match operand {
            Operand::Field(path) => follow(dot, path),
            Operand::Variable(name, path) if name.is_empty() => follow(self.data, path),
            Operand::Variable(name, path) => {
                let value = self.variables.iter().rev().find(|known| known.0 == *name).map(|known| &known.1);
                follow(value.unwrap_or(&Value::Nil), path)
            }
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Function(name) => functions::call(name, Vec::new()),
            Operand::Group(pipeline, path) => {
                let value = self.commands(&pipeline.commands, dot)?;
                follow(&value, path)
            }
        }
    }
}
