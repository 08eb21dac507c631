//! Server engines: CA rotation, signing, the authorized-entry index. No gRPC, no SQL, no wall clock.
