/// What `--version`, logs, metrics and PostStatus say: the SPIRE release whose place is taken, and our own as build metadata.
pub const VERSION: &str = concat!("1.16.0+steeple.", env!("CARGO_PKG_VERSION"));
