//! The one integration test binary: a module a boundary.

mod store;
mod support;
mod wire;
