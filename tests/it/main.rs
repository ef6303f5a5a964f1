//! The one integration test binary: a module a boundary.

mod access;
mod api;
mod backup;
mod cli;
mod content;
mod faults;
mod grpcurl;
mod house;
mod memstore;
mod recovery;
mod store;
mod support;
mod wire;
