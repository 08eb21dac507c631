//! What every command shares: output formats, socket flags, connections.
