//! From quoted source text to values, and back.

use std::fmt::Write as _;

/// The value of an HCL string, given what stands between its quotes. Escapes are undone, except inside `${ … }`,
/// which HCL 1 keeps as written. The scanner has checked the escapes' form; what is left is their range.
pub(crate) fn unquote_hcl(inner: &str) -> Result<String, String> {
    if !inner.contains(['\\', '$']) {
        return Ok(inner.to_owned());
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("${") {
            let end = interpolation_end(rest).ok_or("'${' without its '}'")?;
            out.extend_from_slice(&rest.as_bytes()[..end]);
            rest = &rest[end..];
        } else if c == '\\' {
            let used = unescape(&rest[1..], Escapes::Hcl, &mut out)?;
            rest = &rest[1 + used..];
        } else {
            out.extend_from_slice(&rest.as_bytes()[..c.len_utf8()]);
            rest = &rest[c.len_utf8()..];
        }
    }
    utf8(out)
}

/// The value of a JSON string. Takes JSON's escapes and those HCL 1's JSON scanner takes besides.
pub(crate) fn unquote_json(inner: &str) -> Result<String, String> {
    if !inner.contains('\\') {
        return Ok(inner.to_owned());
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(slash) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..slash]);
        let used = unescape(&rest[slash + 1..], Escapes::Json, &mut out)?;
        rest = &rest[slash + 1 + used..];
    }
    out.extend_from_slice(rest.as_bytes());
    utf8(out)
}

#[derive(Clone, Copy, PartialEq)]
enum Escapes {
    Hcl,
    Json,
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| "string is not valid UTF-8 once its escapes are undone".to_owned())
}

/// Where the interpolation that `text` begins with ends, braces balanced.
fn interpolation_end(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Undoes one escape; `text` starts behind the backslash. Answers how many bytes it took.
fn unescape(text: &str, escapes: Escapes, out: &mut Vec<u8>) -> Result<usize, String> {
    let Some(&kind) = text.as_bytes().first() else {
        return Err("string ends in a backslash".to_owned());
    };
    let plain = match kind {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' | b'"' => kind,
        b'/' if escapes == Escapes::Json => kind,
        b'0'..=b'7' => {
            let value = digits(text, 0, 3, 8)?;
            out.push(u8::try_from(value).map_err(|_| format!("octal escape \\{} is above 377", &text[..3]))?);
            return Ok(3);
        }
        b'x' => {
            out.push(digits(text, 1, 2, 16)? as u8);
            return Ok(3);
        }
        b'u' | b'U' => return unescape_unicode(text, kind, escapes, out),
        _ => return Err("unknown escape".to_owned()),
    };
    out.push(plain);
    Ok(1)
}

fn unescape_unicode(text: &str, kind: u8, escapes: Escapes, out: &mut Vec<u8>) -> Result<usize, String> {
    let width = if kind == b'u' { 4 } else { 8 };
    let mut value = digits(text, 1, width, 16)?;
    let mut used = 1 + width;
    if escapes == Escapes::Json && (0xd800..0xdc00).contains(&value) && text[used..].starts_with("\\u") {
        let low = digits(text, used + 2, 4, 16)?;
        if (0xdc00..0xe000).contains(&low) {
            value = 0x10000 + ((value - 0xd800) << 10) + (low - 0xdc00);
            used += 6;
        }
    }
    if value > 0x10_ffff {
        return Err(format!("escape \\{} is above the last Unicode code point", &text[..used]));
    }
    // A lone surrogate becomes the replacement character, as Go encodes it.
    let c = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(used)
}

fn digits(text: &str, from: usize, count: usize, base: u32) -> Result<u32, String> {
    let bytes = text.as_bytes().get(from..from + count).ok_or("escape is cut short")?;
    let mut value: u32 = 0;
    for b in bytes {
        let digit = char::from(*b).to_digit(base).ok_or("escape has a character that is no digit")?;
        // Eight hex digits fit exactly.
        value = value.wrapping_mul(base).wrapping_add(digit);
    }
    Ok(value)
}

/// The value of a heredoc, given its whole text from `<<` to the end of the marker's line. Follows HCL 1 to the
/// byte, its way of counting the closing marker by the length of the opening one included.
pub(crate) fn unindent_heredoc(text: &str) -> Result<String, String> {
    let malformed = || "malformed heredoc".to_owned();
    let newline = text.find('\n').ok_or_else(malformed)?;
    // The opening line is `<<` + marker; the closing one marker + `\n`: one byte less.
    let end = (text.len() + 1).checked_sub(newline).ok_or_else(malformed)?;
    if text.as_bytes().get(2) != Some(&b'-') {
        return text.get(newline + 1..end).map(str::to_owned).ok_or_else(malformed);
    }
    let body = text.get(newline + 1..end + 1).ok_or_else(malformed)?;
    let lines: Vec<&str> = body.split('\n').collect();
    let Some((indent, content)) = lines.split_last() else {
        return Err(malformed());
    };
    if !content.iter().all(|line| line.starts_with(indent)) {
        let kept = text.get(newline + 1..end).ok_or_else(malformed)?;
        return Ok(kept.trim_end_matches([' ', '\t']).to_owned());
    }
    let mut out = String::with_capacity(body.len());
    for line in content {
        out.push_str(&line[indent.len()..]);
        out.push('\n');
    }
    Ok(out)
}

/// A string as HCL 1 source, quotes included, such that parsing gives `value` back.
pub(crate) fn quote_hcl(value: &str, out: &mut String) {
    out.push('"');
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Else HCL would take what follows for an interpolation and leave its escapes alone.
            '$' if chars.peek() == Some(&'{') => out.push_str("\\x24"),
            // U+E123 is refused by HCL 1's scanner: its printer uses it as a mark.
            c if c.is_control() || c == '\u{e123}' || c == '\u{feff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A string as Go's `%q` prints it. SPIRE's messages are full of it.
pub fn go_quote(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{07}' => out.push_str("\\a"),
            '\u{08}' => out.push_str("\\b"),
            '\u{0c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{0b}' => out.push_str("\\v"),
            c if c < ' ' || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if is_printable(c) => out.push(c),
            c if u32::from(c) < 0x10000 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

/// Go's `strconv.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space. The standard library
/// knows these as what a string's debug form leaves alone behind its first character.
fn is_printable(c: char) -> bool {
    c.is_ascii_graphic() || c == ' ' || {
        let behind_another: String = ['a', c].iter().collect();
        !behind_another.escape_debug().any(|c| c == '\\')
    }
}

#[cfg(test)]
mod tests;
