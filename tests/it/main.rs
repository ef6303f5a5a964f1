//! The one integration test binary: a module a boundary.

mod access;
mod adopt;
mod api;
mod backup;
mod cli;
mod content;
mod copy;
mod export;
mod faults;
mod grpcurl;
mod house;
mod memstore;
mod port;
mod recovery;
mod store;
mod support;
mod wire;
