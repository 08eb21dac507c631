//! How many connections the Workload API can hold.

use steeple_runtime::raise_open_files;

/// For everything else.
const RESERVED: u64 = 256;
/// One user cannot have more than this unless the operator says so.
const DEFAULT_MOST: usize = 16 * 1024;

/// What one user may have open: the configured number, but never all of the process's descriptors.
pub fn connections_per_user(configured: Option<usize>) -> usize {
    let files = raise_open_files();
    // A connection takes one, its process one more for all of its connections. A quarter stays for other users.
    let share = usize::try_from(files.saturating_sub(RESERVED) / 4 * 3).unwrap_or(usize::MAX).max(1);
    let wanted = configured.unwrap_or(DEFAULT_MOST);
    if configured.is_some() && wanted > share {
        tracing::warn!(
            wanted,
            possible = share,
            "workload_connections_per_user is more than the limit of open files allows; raise it (LimitNOFILE)"
        );
    }
    wanted.min(share)
}
