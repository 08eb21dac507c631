//! Release numbers as `migrations.code_version` holds them: semantic versions, read as strictly as SPIRE reads them.

use std::cmp::Ordering;
use std::str::FromStr;

/// Major, minor and patch; of what stands behind them only whether it makes the version a preview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CodeVersion {
    major: u64,
    minor: u64,
    patch: u64,
    preview: bool,
}

/// Why a text is no version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum NotAVersion {
    #[error("No Major.Minor.Patch elements found")]
    Parts,
    #[error("{0:?} is not a number without leading zeros")]
    Number(String),
}

impl CodeVersion {
    /// The release whose schema we serve, as [`crate::schema::CODE_VERSION`] says it.
    pub const OURS: Self = Self { major: 1, minor: 16, patch: 0, preview: false };

    /// SPIRE's rule: the same major release, minor releases at most one apart.
    pub fn is_compatible(&self, other: &Self) -> bool {
        self.major == other.major && self.minor.abs_diff(other.minor) <= 1
    }
}

/// Semantic versioning's order. Two previews of one release count as equal: we release none.
impl PartialOrd for CodeVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let numbers = |version: &Self| (version.major, version.minor, version.patch, !version.preview);
        numbers(self).partial_cmp(&numbers(other))
    }
}

impl FromStr for CodeVersion {
    type Err = NotAVersion;

    /// No text is version 0.0.0: databases of old releases.
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        if text.is_empty() {
            return Ok(Self { major: 0, minor: 0, patch: 0, preview: false });
        }
        let text = text.split_once('+').map_or(text, |(version, _)| version);
        let (numbers, preview) = match text.split_once('-') {
            Some((numbers, _)) => (numbers, true),
            None => (text, false),
        };
        let mut parts = numbers.splitn(3, '.').map(number);
        let (Some(major), Some(minor), Some(patch)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NotAVersion::Parts);
        };
        Ok(Self { major: major?, minor: minor?, patch: patch?, preview })
    }
}

fn number(text: &str) -> Result<u64, NotAVersion> {
    let leading = text.len() > 1 && text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && !leading => Ok(number),
        _ => Err(NotAVersion::Number(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::CODE_VERSION;

    fn version(text: &str) -> CodeVersion {
        text.parse().unwrap()
    }

    #[test]
    fn ours_is_what_we_write() {
        assert_eq!(version(CODE_VERSION), CodeVersion::OURS);
    }

    #[test]
    fn order() {
        assert!(CodeVersion::OURS > version(""));
        assert!(CodeVersion::OURS > version("1.15.3"));
        assert!(CodeVersion::OURS > version("1.16.0-dev-unk"));
        assert!(CodeVersion::OURS <= version("1.16.0"));
        assert!(CodeVersion::OURS <= version("1.16.0+steeple.9.9.9"));
        assert!(CodeVersion::OURS < version("1.16.1-rc1"));
        assert!(CodeVersion::OURS < version("2.0.0"));
    }

    #[test]
    fn one_minor_release_apart() {
        for (text, compatible) in [
            ("1.15.3", true),
            ("1.16.9", true),
            ("1.17.0-dev", true),
            ("1.14.7", false),
            ("1.18.0", false),
            ("2.16.0", false),
            ("", false),
        ] {
            assert_eq!(CodeVersion::OURS.is_compatible(&version(text)), compatible, "{text}");
        }
    }

    #[test]
    fn what_is_no_version() {
        assert_eq!("bogus".parse::<CodeVersion>(), Err(NotAVersion::Parts));
        assert_eq!("1.16".parse::<CodeVersion>(), Err(NotAVersion::Parts));
        for text in ["1.x.0", "1.016.0", "1..0", "1.16.0.1", "1.16.+5"] {
            assert!(text.parse::<CodeVersion>().is_err(), "{text}");
        }
    }
}
