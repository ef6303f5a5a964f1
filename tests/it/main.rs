//! The one integration test binary: a module a boundary.

mod access;
mod adopt;
mod api;
mod audit;
mod backup;
mod cli;
mod content;
mod copy;
mod download;
mod export;
mod faults;
mod grpcurl;
mod house;
mod memstore;
mod metrics;
mod objects;
mod port;
mod recovery;
mod rest;
mod storage;
mod store;
mod support;
mod wire;
