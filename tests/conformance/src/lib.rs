//! The SPIFFE requirements of type srv as black-box tests by id.
