//! SPIRE's configuration dialect (HCL 1 and JSON), its decoding, and Go-style command lines.
//!
//! The way of a configuration file, one short step each:
//!
//! ```
//! use steeple_config::{Strictness, UnknownKeys, expand_env, parse};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let text = r#"server { trust_domain = "$TD" bind_port = "8081" typo = 1 }"#;
//! let text = expand_env(text, |name| (name == "TD").then(|| "example.org".to_owned()));
//! let body = parse("server.conf", &text)?; // HCL 1, or JSON where the first character is `{`
//!
//! let mut unknown = UnknownKeys::default();
//! let mut root = body.block();
//! let mut server = root.block("server")?.ok_or("server section must be configured")?;
//! let trust_domain = server.string("trust_domain")?.unwrap_or_default();
//! let port = server.port("bind_port")?;
//! server.finish(Strictness::Strict, "server", &mut unknown);
//! root.finish(Strictness::Strict, "top-level", &mut unknown);
//!
//! assert_eq!((trust_domain.as_str(), port), ("example.org", Some(8081)));
//! assert_eq!(unknown.refused()[0].to_string(), "server.conf:1:58: unknown key \"typo\" in server");
//! # Ok(()) }
//! ```
//!
//! # Public API
//!
//! **Text.** [`expand_env`] replaces `$VAR` and `${VAR}` as Go's `os.Expand`; [`expand_process_env`] does it from
//! the process environment. [`parse`]/[`parse_bytes`] give a [`Body`]; [`read_file`] reads, expands and parses with
//! SPIRE's messages. Errors are [`ConfigError`] and say `file:line:column: …`.
//!
//! **Tree.** [`Body`] (`file()`, `items()`, `block()`, `to_hcl()`, `is_empty()`, `clone()`), [`Item`], [`Key`],
//! [`Value`], [`Literal`], [`Pos`].
//!
//! **Decoding.** [`Block`] hands out keys; a key is matched without regard to case, and what was not asked for is
//! left over for [`Block::finish`]. Every getter answers `Ok(None)` for an absent key (or a JSON `null`):
//!
//! | method | Go field | accepts |
//! |---|---|---|
//! | `string(key)` | `string` | string, heredoc, number (its source text) |
//! | `int(key)`, `port(key)` | `int` | number, string that holds one (`"8081"`, `"0x1f"`); `port` also checks 0..=65535 |
//! | `bool(key)` | `bool` | `true`, `false` |
//! | `float(key)` | `float64` | number |
//! | `duration(key)` | `string` parsed later | string in Go's duration syntax |
//! | `strings(key)` | `[]string` | list; repeated keys append |
//! | `string_map(key)` | `map[string]string` | block or object |
//! | `block(key)` | struct | block or object; repeated ones merge |
//! | `blocks(key)` | `[]struct` | repeated blocks, or a list of objects |
//! | `labelled(key)` | `map[string]struct` | `key "label" {}`, `key { "label" {} }`; order kept |
//! | `body(key)` | `ast.Node` | block or object, as a [`Body`] to decode later |
//! | `contains(key)`, `pos_of(key)` | | is it there, and where |
//!
//! [`UnknownKeys`] collects leftovers by section; [`UnknownKeys::refused`] are those SPIRE refuses to start with
//! ("unknown configuration detected"), [`UnknownKeys::overlooked`] those it never notices (worth a warning);
//! [`UnknownKeys::sections`] gives SPIRE's log fields `section` and `keys`.
//!
//! **Plugins.** [`plugins`]`(&body)` with the body of `plugins {}` (`root.body("plugins")?`) → `Vec<`[`PluginConfig`]`>`
//! in file order: `kind`, `name`, `command`, `args`, `checksum`, `data: `[`PluginData`] (`None`, `Inline(Body)`, `File(path)`),
//! `enabled`. `PluginData::text()` is what an external plugin is configured with; a built-in decodes
//! `PluginConfig::body()`.
//!
//! **Durations.** [`GoDuration`]: `"1h30m".parse()`, `Display` as Go's `Duration.String`, `nanos()`, `seconds()`, `to_std()`.
//!
//! **Command lines.** [`FlagSet`]: each definition returns a typed handle [`Flag`]`<T>`:
//!
//! ```
//! use steeple_config::{FlagError, FlagSet};
//! let mut flags = FlagSet::new("entry create");
//! let spiffe_id = flags.string("spiffeID", "", "SPIFFE ID of the workload");
//! let selectors = flags.strings("selector", "Selector as type:value; may be given again");
//! let ttl = flags.int("x509SVIDTTL", 0, "Seconds");
//! let admin = flags.bool("admin", false, "May use the server's API");
//! flags.parse(&["-spiffeID=spiffe://td/w", "--selector", "unix:uid:1", "-admin", "rest"]).unwrap();
//! assert_eq!(spiffe_id.get(), "spiffe://td/w");
//! assert_eq!((selectors.get().len(), ttl.get(), admin.get(), ttl.is_set()), (1, 0, true, false));
//! assert_eq!(flags.args(), ["rest"]);
//!
//! let err = flags.parse(&["-nope"]).unwrap_err();
//! assert!(!err.is_help()); // -h and -help
//! assert_eq!(err.to_string(), "flag provided but not defined: -nope");
//! assert!(err.output().starts_with("flag provided but not defined: -nope\nUsage of entry create:\n")); // for stderr
//! ```
//! Kinds: `string`, `bool`, `int`, `duration` (Go's `DurationVar`), `duration_value` (SPIRE's own duration flag),
//! `strings` (repeated), `csv`, `tri_bool` (`Option<bool>`), `value` (any type, own setter).

mod ast;
mod decode;
mod duration;
mod env;
mod error;
mod file;
mod flags;
mod json;
mod number;
mod parser;
mod plugins;
mod print;
mod quote;
mod scanner;
mod unknown;

pub use ast::{Body, Item, Key, KeyKind, List, Literal, LiteralKind, Object, Pos, Value};
pub use decode::Block;
pub use duration::{DurationError, GoDuration};
pub use env::{expand_env, expand_process_env};
pub use error::ConfigError;
pub use file::{FileError, parse, parse_bytes, read_file};
pub use flags::{Flag, FlagError, FlagSet};
pub use plugins::{PluginConfig, PluginData, PluginDataError, plugins};
pub use quote::go_quote;
pub use unknown::{Strictness, UnknownKey, UnknownKeys, UnknownSection};
