//! Backups of Redis and Valkey as long-running operations over gRPC.
//!
//! A call answers at once with an operation; a worker does the work; the result is a file in artifact storage with a
//! manifest beside it. The rooms, in reading order:
//!
//! - values: [`cluster`], [`backup`] and [`failure`], the nouns; [`operation`], the states and what may follow what;
//! - what they rest on: [`store`], the durable record; [`artifacts`], the files and the manifest;
//! - the source: [`redis`], the servers and how they replicate; [`rdb`], the bytes of a dump; [`snapshot`], one shard from
//!   socket to artifact;
//! - the work: [`fleet`], the clusters that are known; [`executor`], from an accepted operation to its end;
//! - the way in: [`pb`], the wire; [`api`], the services; [`config`], what the service is told; [`server`], the ports;
//! - beside the service: [`cli`], the command line; [`offline`], work on a stopped service's data; [`demo`], everything at
//!   once; [`telemetry`], logs.
//!
//! Who may know whom, from the top down; a room names only rooms below it, or beside it without a circle:
//!
//! ```text
//! main
//! demo, server, offline
//! cli, api, config
//! executor
//! snapshot, store, fleet
//! artifacts, redis
//! operation, rdb
//! cluster, backup, failure
//! pb, telemetry
//! ```
//!
//! Only `api`, `cli` and `demo` speak the wire. Only `artifacts` knows the object-store crate, only `store/sled` the embedded
//! database. Only `operation` decides what may follow what: it has no input or output and no clock. A test holds the house to
//! this page.

pub mod api;
pub mod artifacts;
pub mod backup;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod executor;
pub mod failure;
pub mod fleet;
pub mod offline;
pub mod operation;
pub mod pb;
pub mod rdb;
pub mod redis;
pub mod server;
pub mod snapshot;
pub mod store;
pub mod telemetry;
