//! The one integration test binary: a module a boundary.

mod backup;
mod store;
mod support;
mod wire;
