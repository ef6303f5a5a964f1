//! The one integration test binary: a module a boundary.

mod backup;
mod faults;
mod recovery;
mod store;
mod support;
mod wire;
