//! The one integration test binary: a module a boundary.

mod backup;
mod content;
mod store;
mod support;
mod wire;
