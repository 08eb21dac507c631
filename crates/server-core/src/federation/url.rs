//! What a bundle endpoint's URL may be (SPIFFE Federation §5.2.1.1).

/// Texts are SPIRE's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    #[error("failed to parse bundle endpoint URL: parse {url:?}: {problem}")]
    Malformed { url: String, problem: &'static str },
    #[error("bundle endpoint URL must use the https scheme")]
    NotHttps,
    #[error("bundle endpoint URL must specify the host")]
    NoHost,
    #[error("bundle endpoint URL must not contain user info")]
    UserInfo,
}

/// Answers the URL with its scheme in lower case, as SPIRE stores it.
pub fn check_url(url: &str) -> Result<String, UrlError> {
    let malformed = |problem| Err(UrlError::Malformed { url: url.to_owned(), problem });
    if url.chars().any(|c| c.is_ascii_control()) {
        return malformed("net/url: invalid control character in URL");
    }
    let Some((scheme, rest)) = url.split_once(':') else { return Err(UrlError::NotHttps) };
    if scheme.is_empty() {
        return malformed("missing protocol scheme");
    }
    if !scheme.eq_ignore_ascii_case("https") {
        return Err(UrlError::NotHttps);
    }
    let Some(authority) = rest.strip_prefix("//") else { return Err(UrlError::NoHost) };
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    if authority.is_empty() {
        return Err(UrlError::NoHost);
    }
    if authority.contains(|c: char| c == ' ' || "\"<>\\^`{|}".contains(c)) {
        return malformed("invalid character in host name");
    }
    let port = match authority.rsplit_once(']') {
        Some((_, after)) => after.strip_prefix(':'),
        None if authority.starts_with('[') => return malformed("missing ']' in host"),
        None => authority.rsplit_once(':').map(|(_, port)| port),
    };
    if port.is_some_and(|port| !port.bytes().all(|c| c.is_ascii_digit())) {
        return malformed("invalid port after host");
    }
    Ok(format!("https:{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f_14_what_may_be_a_url() {
        for url in [
            "https://other.org",
            "HTTPS://other.org/bundle?x=1",
            "https://127.0.0.1:8443/",
            "https://[::1]:8443",
            "https://other.org/a@b",
        ] {
            let taken = check_url(url).unwrap();
            assert!(taken.starts_with("https://") && taken.len() == url.len(), "{taken}");
        }
        let malformed = |url: &str, problem| UrlError::Malformed { url: url.to_owned(), problem };
        for (url, refusal) in [
            ("", UrlError::NotHttps),
            ("other.org/bundle", UrlError::NotHttps),
            ("http://other.org", UrlError::NotHttps),
            ("ftp://other.org", UrlError::NotHttps),
            ("https:other.org", UrlError::NoHost),
            ("https://", UrlError::NoHost),
            ("https:///path", UrlError::NoHost),
            ("https://u@other.org", UrlError::UserInfo),
            ("https://u:p@other.org", UrlError::UserInfo),
            ("://other.org", malformed("://other.org", "missing protocol scheme")),
            ("https://a b/", malformed("https://a b/", "invalid character in host name")),
            ("https://a:x/", malformed("https://a:x/", "invalid port after host")),
            ("https://[::1", malformed("https://[::1", "missing ']' in host")),
            ("https://a\n", malformed("https://a\n", "net/url: invalid control character in URL")),
        ] {
            assert_eq!(check_url(url).unwrap_err(), refusal, "{url:?}");
        }
        let text = check_url("://x").unwrap_err().to_string();
        assert_eq!(text, "failed to parse bundle endpoint URL: parse \"://x\": missing protocol scheme");
    }
}
