/// What `--version`, logs and metrics say.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
