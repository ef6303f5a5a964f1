//! The one integration test binary: a module a boundary.

mod adopt;
mod access;
mod api;
mod backup;
mod cli;
mod content;
mod copy;
mod export;
mod faults;
mod grpcurl;
mod house;
mod port;
mod memstore;
mod recovery;
mod store;
mod support;
mod wire;
