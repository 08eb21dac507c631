//! Environment variables in a configuration's text (`-expandEnv`), before it is parsed.

/// Replaces `$VAR` and `${VAR}` as Go's `os.Expand`: an unknown variable becomes nothing, `$$` and `${$}` a dollar
/// (SPIRE's own rule), `${}` and an unclosed `${` are eaten, a dollar before anything else stays.
pub fn expand_env(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if after.is_empty() {
            out.push('$');
            return out;
        }
        let (name, width) = shell_name(after);
        match name {
            "" if width == 0 => out.push('$'),
            "" => {}
            "$" => out.push('$'),
            name => out.push_str(&lookup(name).unwrap_or_default()),
        }
        rest = &after[width..];
    }
    out.push_str(rest);
    out
}

/// [`expand_env`] from the process environment. A variable that is not UTF-8 counts as unset.
pub fn expand_process_env(text: &str) -> String {
    expand_env(text, |name| std::env::var(name).ok())
}

/// The variable name `text` begins with and how many bytes it takes, as Go's `os.Expand` reads it.
fn shell_name(text: &str) -> (&str, usize) {
    let bytes = text.as_bytes();
    match bytes.first() {
        None => ("", 0),
        Some(b'{') => {
            if bytes.len() > 2 && is_special(bytes[1]) && bytes[2] == b'}' {
                return (&text[1..2], 3);
            }
            match text.find('}') {
                Some(1) => ("", 2),
                Some(end) => (&text[1..end], end + 1),
                None => ("", 1),
            }
        }
        Some(&b) if is_special(b) => (&text[..1], 1),
        Some(_) => {
            let end = bytes.iter().position(|b| !is_name(*b)).unwrap_or(bytes.len());
            (&text[..end], end)
        }
    }
}

fn is_special(b: u8) -> bool {
    matches!(b, b'*' | b'#' | b'$' | b'@' | b'!' | b'?' | b'-' | b'0'..=b'9')
}

fn is_name(b: u8) -> bool {
    b == b'_' || b.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests;
