//! The one integration test binary: a module a boundary.

mod api;
mod backup;
mod cli;
mod grpcurl;
mod house;
mod store;
mod support;
mod wire;
