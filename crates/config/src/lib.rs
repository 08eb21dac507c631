//! SPIRE's configuration dialect (HCL 1 and JSON), its decoding, and Go-style command lines.
