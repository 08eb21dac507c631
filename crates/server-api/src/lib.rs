//! The server's gRPC services: conversion, authorization, limits, per-item statuses.
