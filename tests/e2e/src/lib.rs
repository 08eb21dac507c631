//! Black box over public interfaces; the binaries under test are a parameter, so the same suite runs on SPIRE's.
