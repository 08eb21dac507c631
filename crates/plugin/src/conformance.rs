//! One suite per plugin type, run by every implementation.
