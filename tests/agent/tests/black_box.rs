//! One program for all of an agent's black-box tests; one module for each subject.

#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

#[path = "black_box/envoy.rs"]
mod envoy;
#[path = "black_box/envoys.rs"]
mod envoys;
