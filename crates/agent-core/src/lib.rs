//! Agent engines: node identity, entry sync, SVID and JWT caches, rotation. No gRPC, no wall clock.
