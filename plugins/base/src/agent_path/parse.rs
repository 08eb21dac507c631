//! Reading templates. Everything that cannot work is refused here: unknown functions, variables and fields.

use super::Value;
use super::functions;

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

/// `$x := a | b c`: the result of each command is the last argument of the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pipeline {
    /// Variables to set, and whether they are new.
    pub set: Vec<String>,
    pub declares: bool,
    pub commands: Vec<Vec<Operand>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// `.A.B`; empty is the dot itself.
    Field(Vec<String>),
    /// `$x.A`
    Variable(String, Vec<String>),
    Function(String),
    Literal(Value),
    /// `(…).A`
    Group(Box<Pipeline>, Vec<String>),
}

/// Nesting of blocks and parentheses. Templates are an operator's, but a stack is a stack.
const MAX_DEPTH: usize = 32;

pub(super) fn parse(text: &str, example: &Value) -> Result<Vec<Node>, ParseError> {
    let mut parser = Parser { pieces: pieces(text)?, at: 0, example, variables: Vec::new(), depth: 0 };
    let (nodes, end) = parser.nodes(true)?;
    match end {
        None => Ok(nodes),
        Some(end) => Err(ParseError(format!("unexpected {{{{{end}}}}}"))),
    }
}

enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `.A.B`, at the start of an operand or right behind one.
    Fields(Vec<String>, bool),
    Variable(String),
    Literal(Value),
    Open,
    Close,
    Pipe,
    Comma,
    Declare,
    Assign,
}

/// Texts and actions, white space trimmed where `{{-` and `-}}` ask for it.
fn pieces(text: &str) -> Result<Vec<Piece>, ParseError> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut trim = false;
    loop {
        let (before, action) = match rest.split_once("{{") {
            Some((before, action)) => (before, Some(action)),
            None => (rest, None),
        };
        let mut shown = if trim { before.trim_start() } else { before };
        let Some(mut action) = action else {
            out.push(Piece::Text(shown.to_owned()));
            return Ok(out);
        };
        if action.starts_with("- ") {
            shown = shown.trim_end();
            action = &action[1..];
        }
        out.push(Piece::Text(shown.to_owned()));
        if let Some(comment) = action.trim_start().strip_prefix("/*") {
            let (_, behind) =
                comment.split_once("*/").ok_or_else(|| ParseError("unclosed comment".into()))?;
            let behind = behind.trim_start();
            let (skipped, trimmed) = match behind.strip_prefix("-}}") {
                Some(skipped) => (Some(skipped), true),
                None => (behind.strip_prefix("}}"), false),
            };
            rest = skipped.ok_or_else(|| ParseError("comment ends before closing delimiter".into()))?;
            trim = trimmed;
            continue;
        }
        let (tokens, behind, trimmed) = tokens(action)?;
        out.push(Piece::Action(tokens));
        rest = behind;
        trim = trimmed;
    }
}

/// The tokens of one action, what follows it, and whether white space there goes.
fn tokens(action: &str) -> Result<(Vec<Token>, &str, bool), ParseError> {
    let mut out: Vec<Token> = Vec::new();
    let mut rest = action;
    loop {
        let spaced = rest.starts_with(char::is_whitespace) || out.is_empty();
        rest = rest.trim_start();
        if let Some(behind) = rest.strip_prefix("}}") {
            return Ok((out, behind, false));
        }
        if let Some(behind) = rest.strip_prefix("-}}").filter(|_| spaced) {
            return Ok((out, behind, true));
        }
        let first = rest.chars().next().ok_or_else(|| ParseError("unclosed action".into()))?;
        let (token, behind) = match first {
            '(' => (Token::Open, &rest[1..]),
            ')' => (Token::Close, &rest[1..]),
            '|' => (Token::Pipe, &rest[1..]),
            ',' => (Token::Comma, &rest[1..]),
            '=' => (Token::Assign, &rest[1..]),
            ':' if rest.starts_with(":=") => (Token::Declare, &rest[2..]),
            '"' => quoted(rest)?,
            '`' => {
                let (text, behind) = rest[1..]
                    .split_once('`')
                    .ok_or_else(|| ParseError("unterminated raw quoted string".into()))?;
                (Token::Literal(text.into()), behind)
            }
            '$' => {
                let (name, behind) = word(&rest[1..]);
                (Token::Variable(name.to_owned()), behind)
            }
            '.' => {
                let mut fields = Vec::new();
                let mut behind = rest;
                while let Some(after) = behind.strip_prefix('.') {
                    let (name, next) = word(after);
                    behind = after;
                    if name.is_empty() {
                        break;
                    }
                    fields.push(name.to_owned());
                    behind = next;
                }
                let fresh = spaced
                    || matches!(
                        out.last(),
                        Some(Token::Open | Token::Pipe | Token::Comma | Token::Declare | Token::Assign)
                    );
                (Token::Fields(fields, !fresh), behind)
            }
            '0'..='9' | '-' => {
                let end =
                    rest[1..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(rest.len(), |at| at + 1);
                let number =
                    rest[..end].parse().map_err(|_| ParseError(format!("bad number {:?}", &rest[..end])))?;
                (Token::Literal(Value::Int(number)), &rest[end..])
            }
            _ => {
                let (name, behind) = word(rest);
                if name.is_empty() {
                    return Err(ParseError(format!("unexpected {first:?} in action")));
                }
                let token = match name {
                    "true" => Token::Literal(Value::Bool(true)),
                    "false" => Token::Literal(Value::Bool(false)),
                    "nil" => Token::Literal(Value::Nil),
                    name => Token::Word(name.to_owned()),
                };
                (token, behind)
            }
        };
        out.push(token);
        rest = behind;
    }
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

fn quoted(text: &str) -> Result<(Token, &str), ParseError> {
    let mut out = String::new();
    let mut chars = text[1..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Literal(out.into()), &text[at + 2..])),
            '\n' => break,
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(c @ ('"' | '\\' | '\'')) => out.push(c),
                Some(c) => return Err(ParseError(format!("unsupported escape \\{c} in a string"))),
                None => break,
            },
            c => out.push(c),
        }
    }
    Err(ParseError("unterminated quoted string".into()))
}

struct Parser<'a> {
    pieces: Vec<Piece>,
    at: usize,
    example: &'a Value,
    variables: Vec<String>,
    depth: usize,
}

type Nodes = (Vec<Node>, Option<String>);

impl Parser<'_> {
    /// Nodes up to the end, or to the `end` or `else` that is left for the caller. `at_root`: the dot is the data.
    fn nodes(&mut self, at_root: bool) -> Result<Nodes, ParseError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ParseError("nested too deeply".into()));
        }
        let scope = self.variables.len();
        let mut out = Vec::new();
        let end = loop {
            let Some(piece) = self.pieces.get(self.at) else { break None };
            let tokens = match piece {
                Piece::Text(text) => {
                    out.push(Node::Text(text.clone()));
                    self.at += 1;
                    continue;
                }
                Piece::Action(tokens) => tokens.clone(),
            };
            self.at += 1;
            match tokens.first() {
                Some(Token::Word(word)) if word == "end" || word == "else" => {
                    let more: Vec<Token> = tokens[1..].to_vec();
                    if more.is_empty() {
                        break Some(word.clone());
                    }
                    // `else if`, `else with`: as if a block of its own stood there.
                    if word == "else" && matches!(&more[0], Token::Word(w) if w == "if" || w == "with") {
                        self.at -= 1;
                        self.pieces[self.at] = Piece::Action(more);
                        break Some("else if".to_owned());
                    }
                    return Err(ParseError(format!("unexpected words behind {word}")));
                }
                Some(Token::Word(word)) if matches!(word.as_str(), "if" | "with" | "range") => {
                    out.push(self.block(&word.clone(), &tokens[1..], at_root)?);
                }
                Some(Token::Word(word))
                    if matches!(word.as_str(), "define" | "template" | "block" | "break" | "continue") =>
                {
                    return Err(ParseError(format!("{word:?} is not supported in agent path templates")));
                }
                None => return Err(ParseError("missing value for command".into())),
                Some(_) => out.push(Node::Print(self.pipeline(&tokens, at_root)?)),
            }
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok((out, end))
    }

    fn block(&mut self, word: &str, head: &[Token], at_root: bool) -> Result<Node, ParseError> {
        let scope = self.variables.len();
        let head = self.pipeline(head, at_root)?;
        let (then, end) = self.nodes(at_root && word == "if")?;
        let otherwise = match end.as_deref() {
            Some("end") => Vec::new(),
            Some("else") => {
                let (nodes, end) = self.nodes(at_root)?;
                match end.as_deref() {
                    Some("end") => nodes,
                    _ => return Err(ParseError(format!("{word:?} without end"))),
                }
            }
            Some("else if") => {
                // The inner block takes the one `end` there is.
                let Piece::Action(tokens) = &self.pieces[self.at] else {
                    return Err(ParseError(format!("{word:?} without end")));
                };
                let tokens = tokens.clone();
                self.at += 1;
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(ParseError("nested too deeply".into()));
                }
                let inner = if matches!(&tokens[0], Token::Word(w) if w == "if") { "if" } else { "with" };
                let node = self.block(inner, &tokens[1..], at_root)?;
                self.depth -= 1;
                vec![node]
            }
            _ => return Err(ParseError(format!("{word:?} without end"))),
        };
        self.variables.truncate(scope);
        Ok(match word {
            "if" => Node::If { condition: head, then, otherwise },
            "with" => Node::With { value: head, then, otherwise },
            _ => Node::Range { over: head, body: then, otherwise },
        })
    }

    fn pipeline(&mut self, tokens: &[Token], at_root: bool) -> Result<Pipeline, ParseError> {
        let (set, declares, tokens) = match tokens {
            [Token::Variable(a), Token::Comma, Token::Variable(b), Token::Declare, rest @ ..] => {
                (vec![a.clone(), b.clone()], true, rest)
            }
            [Token::Variable(a), Token::Declare, rest @ ..] => (vec![a.clone()], true, rest),
            [Token::Variable(a), Token::Assign, rest @ ..] => {
                self.check_variable(a)?;
                (vec![a.clone()], false, rest)
            }
            all => (Vec::new(), false, all),
        };
        let mut rest = tokens;
        let commands = self.commands(&mut rest, at_root)?;
        if !rest.is_empty() {
            return Err(ParseError("unexpected \")\"".into()));
        }
        if declares {
            self.variables.extend(set.iter().cloned());
        }
        Ok(Pipeline { set, declares, commands })
    }

    /// Commands up to the end or a closing parenthesis, which is left.
    fn commands(&mut self, rest: &mut &[Token], at_root: bool) -> Result<Vec<Vec<Operand>>, ParseError> {
        let mut commands = vec![Vec::new()];
        while let [token, tail @ ..] = *rest {
            if *token == Token::Close {
                break;
            }
            *rest = tail;
            if *token == Token::Pipe {
                commands.push(Vec::new());
                continue;
            }
            let operand = self.operand(token, rest, at_root)?;
            if let Some(command) = commands.last_mut() {
                command.push(operand);
            }
        }
        for (i, command) in commands.iter().enumerate() {
            match command.as_slice() {
                [] => return Err(ParseError("missing value for command".into())),
                [Operand::Function(_), ..] => {}
                [first, _, ..] => {
                    return Err(ParseError(format!("can't give argument to non-function {first:?}")));
                }
                [_] if i > 0 => return Err(ParseError("a value behind \"|\" is no function".into())),
                [_] => {}
            }
        }
        Ok(commands)
    }

    fn operand(&mut self, token: &Token, rest: &mut &[Token], at_root: bool) -> Result<Operand, ParseError> {
        Ok(match token {
            Token::Word(name) => {
                functions::check(name).map_err(ParseError)?;
                Operand::Function(name.clone())
            }
            Token::Fields(path, false) => {
                if at_root {
                    self.check_fields(path)?;
                }
                Operand::Field(path.clone())
            }
            Token::Variable(name) => {
                let path = behind(rest);
                if name.is_empty() {
                    self.check_fields(&path)?;
                } else {
                    self.check_variable(name)?;
                }
                Operand::Variable(name.clone(), path)
            }
            Token::Literal(value) => Operand::Literal(value.clone()),
            Token::Open => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(ParseError("nested too deeply".into()));
                }
                let commands = self.commands(rest, at_root)?;
                self.depth -= 1;
                let [Token::Close, tail @ ..] = *rest else {
                    return Err(ParseError("unclosed left paren".into()));
                };
                *rest = tail;
                let inner = Pipeline { set: Vec::new(), declares: false, commands };
                Operand::Group(Box::new(inner), behind(rest))
            }
            other => return Err(ParseError(format!("unexpected {other:?} in operand"))),
        })
    }

    fn check_variable(&self, name: &str) -> Result<(), ParseError> {
        if name.is_empty() || self.variables.iter().any(|known| known == name) {
            return Ok(());
        }
        Err(ParseError(format!("undefined variable \"${name}\"")))
    }

    /// Follows the path through the example. What a map or a list holds is known at attestation only.
    fn check_fields(&self, path: &[String]) -> Result<(), ParseError> {
        let mut value = self.example;
        for (i, name) in path.iter().enumerate() {
            if matches!(value, Value::Map(_)) {
                return Ok(());
            }
            value = value.field(name).map_err(|_| {
                ParseError(format!("can't evaluate field {name}: there is no .{}", path[..=i].join(".")))
            })?;
        }
        Ok(())
    }
}

/// The `.A.B` that follows an operand without white space.
fn behind(rest: &mut &[Token]) -> Vec<String> {
    match *rest {
        [Token::Fields(path, true), tail @ ..] => {
            *rest = tail;
            path.clone()
        }
        _ => Vec::new(),
    }
}
