//! Load driver and measurements; the binaries are a parameter.
