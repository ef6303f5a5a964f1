//! The one integration test binary: a module a boundary.

mod api;
mod audit;
mod backup;
mod cli;
mod content;
mod faults;
mod grpcurl;
mod house;
mod metrics;
mod recovery;
mod store;
mod support;
mod wire;
