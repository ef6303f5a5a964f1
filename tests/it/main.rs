//! The one integration test binary: a module a boundary.

mod access;
mod adopt;
mod api;
mod audit;
mod backup;
mod cli;
mod content;
mod copy;
mod export;
mod faults;
mod grpcurl;
mod house;
mod kind;
mod memstore;
mod metrics;
mod port;
mod recovery;
mod rest;
mod store;
mod support;
mod topology;
mod wire;
