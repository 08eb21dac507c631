//! The server's gRPC services: conversion, authorization, limits, per-item statuses.
//!
//! | module | what it is |
//! |---|---|
//! | [`access`] | every RPC: who may call it, its limit, its names |
//! | [`layer`], [`authorize`], [`caller`], [`limits`], [`open_calls`], [`rpc`] | what happens around each call |
//! | [`agent`], [`bundle`], [`entry`], [`svid`], [`trust_domain`], [`localauthority`] | SPIRE's services on both endpoints |
//! | [`debug`], [`logger`], [`health`], [`reflection`] | and those on the Unix socket only |
//! | [`push`] | our own stream to agents |
//! | [`federation`] | our own view of how relationships do |
//! | [`rotation`] | SVIDs issued again on demand |
//! | [`convert`], [`error`] | wire types and statuses |
//!
//! [`routes`] puts them together for an endpoint.

pub mod access;
pub mod agent;
pub mod authorize;
pub mod bundle;
pub mod caller;
pub mod convert;
pub mod debug;
pub mod entry;
pub mod error;
pub mod explain;
pub mod federation;
pub mod hash;
pub mod health;
pub mod layer;
pub mod limits;
pub mod localauthority;
pub mod logger;
pub mod open_calls;
pub mod push;
pub mod reflection;
pub mod rotation;
mod routes;
pub mod rpc;
mod state;
pub mod svid;
pub mod trust_domain;

pub use limits::{Limits, RateLimitConfig};
pub use routes::{local_routes, tcp_routes};
pub use state::{ServerChain, ServerState};
