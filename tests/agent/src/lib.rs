//! Black box over an agent's public interfaces: see `tests/black_box`.
//!
//! `STEEPLE_BIN_DIR` names the folder with `spire-server` and `spire-agent` under test, as for `tests/e2e`, whose
//! deployments these tests use.
