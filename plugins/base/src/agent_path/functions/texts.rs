//! Functions of texts.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

use super::{Function, Outcome, Value, list, number, one, text, three, two};

/// What a function may make of its arguments at most, in bytes.
const MAX_TEXT: usize = 64 * 1024;

#[allow(clippy::too_many_lines, reason = "a table: one line for each function")]
pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "trim" => |a| map(a, |s| s.trim().to_owned()),
        "upper" => |a| map(a, str::to_uppercase),
        "lower" => |a| map(a, str::to_lowercase),
        "title" => |a| map(a, |s| each_word(s, |c| c.to_uppercase().collect())),
        "untitle" => |a| map(a, |s| each_word(s, |c| c.to_lowercase().collect())),
        "nospace" => |a| map(a, |s| s.split_whitespace().collect()),
        "swapcase" => |a| map(a, swapcase),
        "quote" => |a| Ok(joined(a, |s| format!("{s:?}")).into()),
        "squote" => |a| Ok(joined(a, |s| format!("'{s}'")).into()),
        "cat" => |a| Ok(joined(a, ToOwned::to_owned).into()),
        "trunc" => |a| pair(a, |s, count| Ok(truncated(s, number(count)?))),
        "abbrev" => |a| pair(a, |s, width| Ok(abbreviated(s, number(width)?))),
        "substr" => substr,
        "repeat" => |a| {
            pair(a, |s, count| {
                let count = usize::try_from(number(count)?).unwrap_or(0);
                if count.saturating_mul(s.len()) > MAX_TEXT {
                    return Err(format!("the text is longer than {MAX_TEXT} bytes"));
                }
                Ok(s.repeat(count))
            })
        },
        "trimAll" => {
            |a| pair(a, |s, set| text(set).map(|set| s.trim_matches(|c| set.contains(c)).to_owned()))
        }
        "trimSuffix" => {
            |a| pair(a, |s, end| text(end).map(|end| s.strip_suffix(end).unwrap_or(s).to_owned()))
        }
        "trimPrefix" => {
            |a| pair(a, |s, start| text(start).map(|p| s.strip_prefix(p).unwrap_or(s).to_owned()))
        }
        "contains" => |a| test(a, |s, part| s.contains(part)),
        "hasPrefix" => |a| test(a, |s, start| s.starts_with(start)),
        "hasSuffix" => |a| test(a, |s, end| s.ends_with(end)),
        "indent" => |a| pair(a, |s, count| indented(s, number(count)?)),
        "nindent" => |a| pair(a, |s, count| Ok(format!("\n{}", indented(s, number(count)?)?))),
        "replace" => |a| {
            let (old, new, s) = three(a)?;
            let (old, new, s) = (text(old)?, text(new)?, text(s)?);
            bounded(s.replace(old, new))
        },
        "toString" => |a| one(a).map(|value| value.to_string().into()),
        "sha1sum" => |a| map(a, |s| hex(&digest::SHA1_FOR_LEGACY_USE_ONLY, s)),
        "sha256sum" => |a| map(a, |s| hex(&digest::SHA256, s)),
        "b64enc" => |a| map(a, |s| STANDARD.encode(s)),
        "b64dec" => |a| {
            let bytes = STANDARD.decode(text(one(a)?)?).map_err(|error| error.to_string())?;
            String::from_utf8(bytes).map(Into::into).map_err(|_| "the decoded text is not UTF-8".to_owned())
        },
        "b32enc" => |a| map(a, |s| base32(s.as_bytes())),
        "b32dec" => |a| {
            let bytes = from_base32(text(one(a)?)?).ok_or("illegal base32 data")?;
            String::from_utf8(bytes).map(Into::into).map_err(|_| "the decoded text is not UTF-8".to_owned())
        },
        "base" => |a| map(a, base),
        "dir" => |a| {
            map(a, |s| {
                clean(s.rsplit_once('/').map_or("", |(dir, _)| if dir.is_empty() { "/" } else { dir }))
            })
        },
        "clean" => |a| map(a, clean),
        "ext" => |a| map(a, |s| base_raw(s).rfind('.').map_or("", |at| &base_raw(s)[at..]).to_owned()),
        "isAbs" => |a| Ok(Value::Bool(text(one(a)?)?.starts_with('/'))),
        "fail" => |a| Err(text(one(a)?)?.to_owned()),
        "splitList" => |a| {
            let (separator, s) = two(a)?;
            let (separator, s) = (text(separator)?, text(s)?);
            if separator.is_empty() {
                return Ok(Value::strings(s.chars()));
            }
            Ok(Value::strings(s.split(separator)))
        },
        "join" => |a| {
            let (separator, items) = two(a)?;
            let items: Vec<String> = list(items)?.iter().map(ToString::to_string).collect();
            Ok(items.join(text(separator)?).into())
        },
        "toStrings" => |a| Ok(Value::strings(list(one(a)?)?.iter().map(ToString::to_string))),
        "sortAlpha" => |a| {
            let mut items: Vec<String> = list(one(a)?)?.iter().map(ToString::to_string).collect();
            items.sort();
            Ok(Value::strings(items))
        },
        "regexMatch" | "mustRegexMatch" => |a| {
            let (pattern, s) = two(a)?;
            Ok(Value::Bool(regex(pattern)?.is_match(text(s)?)))
        },
        "regexFind" | "mustRegexFind" => |a| {
            let (pattern, s) = two(a)?;
            Ok(regex(pattern)?.find(text(s)?).map_or("", |found| found.as_str()).into())
        },
        "regexFindAll" | "mustRegexFindAll" => |a| {
            let (pattern, s, most) = three(a)?;
            let most = usize::try_from(number(most)?).unwrap_or(usize::MAX);
            Ok(Value::strings(regex(pattern)?.find_iter(text(s)?).take(most).map(|found| found.as_str())))
        },
        "regexReplaceAll" | "mustRegexReplaceAll" => |a| {
            let (pattern, s, by) = three(a)?;
            bounded(regex(pattern)?.replace_all(text(s)?, text(by)?).into_owned())
        },
        "regexReplaceAllLiteral" | "mustRegexReplaceAllLiteral" => |a| {
            let (pattern, s, by) = three(a)?;
            bounded(regex(pattern)?.replace_all(text(s)?, regex::NoExpand(text(by)?)).into_owned())
        },
        "regexSplit" | "mustRegexSplit" => |a| {
            let (pattern, s, most) = three(a)?;
            let (pattern, s) = (regex(pattern)?, text(s)?);
            Ok(match usize::try_from(number(most)?) {
                Ok(most) => Value::strings(pattern.splitn(s, most)),
                Err(_) => Value::strings(pattern.split(s)),
            })
        },
        "regexQuoteMeta" => |a| map(a, regex::escape),
        _ => return None,
    })
}

/// Go's verbs for texts and whole numbers.
pub(super) fn printf(arguments: &[Value]) -> Outcome {
    let (format, values) = arguments.split_first().ok_or("missing format")?;
    let mut values = values.iter();
    let mut out = String::new();
    let mut rest = text(format)?;
    while let Some((before, spec)) = rest.split_once('%') {
        out.push_str(before);
        let flags = spec.find(|c: char| !c.is_ascii_digit() && c != '-').ok_or("%!(NOVERB)")?;
        let (width, verb) = spec.split_at(flags);
        let verb_char = verb.chars().next().ok_or("%!(NOVERB)")?;
        rest = &verb[verb_char.len_utf8()..];
        if verb_char == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("printf: no value for %{verb_char}"))?;
        let shown = match (verb_char, value) {
            ('s' | 'v', value) => value.to_string(),
            ('d', Value::Int(_) | Value::Big { .. }) => value.to_string(),
            ('q', value) => format!("{:?}", value.to_string()),
            ('x', Value::Big { hex, .. }) => hex.clone(),
            ('x', Value::Int(number)) if *number >= 0 => format!("{number:x}"),
            ('x', Value::Str(text)) => text.bytes().fold(String::new(), |mut out, byte| {
                let _ = write!(out, "{byte:02x}");
                out
            }),
            (verb, value) => return Err(format!("printf: %{verb} does not go with a {}", value.kind())),
        };
        let left = width.starts_with('-');
        let zeros = width.starts_with('0');
        let wanted: usize = width.trim_start_matches('-').parse().unwrap_or(0).min(1024);
        let missing = wanted.saturating_sub(shown.chars().count());
        let fill = if zeros { "0" } else { " " }.repeat(missing);
        if left {
            out.push_str(&shown);
            out.push_str(&fill);
        } else {
            out.push_str(&fill);
            out.push_str(&shown);
        }
    }
    out.push_str(rest);
    Ok(out.into())
}

fn map(arguments: &[Value], f: impl Fn(&str) -> String) -> Outcome {
    Ok(f(text(one(arguments)?)?).into())
}

/// Sprig puts the text last, so that pipelines can give it.
fn pair(arguments: &[Value], f: impl Fn(&str, &Value) -> Result<String, String>) -> Outcome {
    let (first, s) = two(arguments)?;
    Ok(f(text(s)?, first)?.into())
}

fn test(arguments: &[Value], f: impl Fn(&str, &str) -> bool) -> Outcome {
    let (part, s) = two(arguments)?;
    Ok(Value::Bool(f(text(s)?, text(part)?)))
}

fn bounded(text: String) -> Outcome {
    if text.len() > MAX_TEXT {
        Err(format!("the text is longer than {MAX_TEXT} bytes"))
    } else {
        Ok(text.into())
    }
}

fn joined(arguments: &[Value], f: impl Fn(&String) -> String) -> String {
    let texts = arguments.iter().filter(|value| **value != Value::Nil).map(|value| f(&value.to_string()));
    texts.collect::<Vec<_>>().join(" ")
}

fn each_word(s: &str, first: impl Fn(char) -> String) -> String {
    let mut out = String::with_capacity(s.len());
    let mut starts = true;
    for c in s.chars() {
        if starts {
            out.push_str(&first(c));
        } else {
            out.push(c);
        }
        starts = c.is_whitespace();
    }
    out
}

fn swapcase(s: &str) -> String {
    s.chars()
        .flat_map(|c| {
            if c.is_uppercase() { c.to_lowercase().collect::<Vec<_>>() } else { c.to_uppercase().collect() }
        })
        .collect()
}

/// Negative: the end instead of the start.
fn truncated(s: &str, count: i64) -> String {
    let len = s.chars().count();
    let keep = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX).min(len);
    if count < 0 { s.chars().skip(len - keep).collect() } else { s.chars().take(keep).collect() }
}

fn abbreviated(s: &str, width: i64) -> String {
    let width = usize::try_from(width).unwrap_or(0);
    if width < 4 || s.chars().count() <= width {
        return s.to_owned();
    }
    s.chars().take(width - 3).chain("...".chars()).collect()
}

fn substr(arguments: &[Value]) -> Outcome {
    let (from, to, s) = three(arguments)?;
    let (from, to, s) = (number(from)?, number(to)?, text(s)?);
    let from = usize::try_from(from).unwrap_or(0).min(s.len());
    let to = usize::try_from(to).unwrap_or(s.len()).min(s.len());
    s.get(from..to.max(from)).map(Into::into).ok_or_else(|| "substr cuts a character".to_owned())
}

fn indented(s: &str, count: i64) -> Result<String, String> {
    let count = usize::try_from(count).ok().filter(|count| *count <= 1024).ok_or("indent out of range")?;
    let pad = " ".repeat(count);
    Ok(format!("{pad}{}", s.replace('\n', &format!("\n{pad}"))))
}

fn regex(pattern: &Value) -> Result<Regex, String> {
    Regex::new(text(pattern)?).map_err(|error| format!("error parsing regexp: {error}"))
}

fn hex(algorithm: &'static digest::Algorithm, s: &str) -> String {
    crate::hex(digest::digest(algorithm, s.as_bytes()).as_ref())
}

fn base_raw(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Go's path.Base.
fn base(path: &str) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let name = base_raw(path.trim_end_matches('/'));
    if name.is_empty() { "/".to_owned() } else { name.to_owned() }
}

/// Go's path.Clean.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut out: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." if out.last().is_some_and(|last| *last != "..") => {
                out.pop();
            }
            ".." if rooted => {}
            segment => out.push(segment),
        }
    }
    match (rooted, out.is_empty()) {
        (true, _) => format!("/{}", out.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => out.join("/"),
    }
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for chunk in bytes.chunks(5) {
        let mut block = [0; 8];
        block[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(block);
        let digits = (chunk.len() * 8).div_ceil(5);
        for i in 0..8 {
            let digit = BASE32[(bits >> (35 - 5 * i)) as usize & 31];
            out.push(if i < digits { char::from(digit) } else { '=' });
        }
    }
    out
}

fn from_base32(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(8) {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 8 * 5);
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 6 {
        return None;
    }
    let (mut bits, mut count) = (0_u64, 0);
    for digit in digits.bytes() {
        bits = bits << 5 | BASE32.iter().position(|known| *known == digit)? as u64;
        count += 5;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}
