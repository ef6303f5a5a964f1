//! The one integration test binary: a module a boundary.

mod access;
mod adopt;
mod api;
mod audit;
mod backup;
mod cli;
mod content;
mod copy;
mod engines;
mod export;
mod faults;
mod grpcurl;
mod house;
mod import;
mod memstore;
mod metrics;
mod mutants;
mod port;
mod recovery;
mod rest;
mod storage;
mod store;
mod support;
mod topology;
mod walk;
mod wire;
