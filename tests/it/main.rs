//! The one integration test binary: a module a boundary.

mod api;
mod backup;
mod cli;
mod content;
mod faults;
mod grpcurl;
mod house;
mod recovery;
mod rest;
mod store;
mod support;
mod wire;
