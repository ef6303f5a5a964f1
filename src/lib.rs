//! Redkeep: backups of Redis and Valkey as long-running operations.
//!
//! Every call that changes something answers at once with an *operation*. The operation is durable before the answer; a
//! worker does what it says, over the network and from a replica where there is one; its end is recorded exactly once. A
//! backup is a plain RDB file, usually under zstd, beside a JSON manifest: standard tools restore it without us.
//!
//! # The rooms, in reading order
//!
//! ```text
//! main.rs       pick a command, run it, turn an error into an exit status
//! cli           the command line; its client commands speak only the wire
//! demo          the whole way on servers started for the purpose
//! offline       commands on the data of a service that is not running
//!   stored        a backup by where it lies, with nothing but its storage
//!   fetch         its RDB files, checked
//!   restore       one of them into a running server
//!   rebuild       records made again out of what storage has
//! server        builds the rooms, binds the ports, serves, stops gracefully
//!   accept        who may be connected: the loop, and the bounded set of connections
//!   connection    one connection, from its first byte to its end
//!   traffic       what a connection does, and when that is too little
//!   tls           certificates, read again when they change
//!   guard         a web page is no way in
//!   calls         what one call may take: a place, the time of its body
//!   deadline      the time that a gRPC client gives a call
//!   doors         gRPC, gRPC-Web and the rest, on one port
//!   refusal       an answer that no room behind the doors has given
//! memstore      the MemStore calls under /v1/backups, on the same handlers' executor
//!   route         which call a path and a method are
//!   visitor       who calls, and in which project
//!   body          a request's body as JSON, bounded
//!   name          the rule for names that callers give
//!   filter        what a list is to hold
//!   destination   where an export goes
//!   precondition  what a cluster must be for a backup
//!   calls         the six calls
//!   render        a backup as callers see it
//!   answer        answers and refusals in their one shape
//! downloads     files of backups, for whoever has a link
//!   range       which bytes of a file are asked for
//! config        file, environment and flags become one checked value
//! gateway       REST and JSON in front of the services, from the descriptors
//!   routes        which call a method and a path are for
//!   bind          one request message out of path, query and body
//!   json          JSON of messages, both ways
//!   call          calls of the services in this process
//!   openapi       the OpenAPI document
//! api           the services: parse, ask, render
//!   codec         every request is checked as it is read
//!   validate      the rules of requests, from the options in the descriptors
//!   convert       every arrow between wire and domain
//!   status        every arrow from our errors to a status
//!   access        which role each call needs, and where callers are let in
//!   discovery     where the services are
//!   restore       restores into servers that run: where to, and who may
//!   tokens        short-lived tokens for clients that log in by an exchange
//!   calls         what every call leaves behind: numbers, a request id, a line in the audit log
//!   later         calls that the schema has and that are not built
//! schedule      backups by themselves: what is due, and what became of it
//! executor      accept, claim, keep the lease, repeat, cancel, hand back
//!   attempt       one attempt with its heartbeat
//!   backup        PREFLIGHT, SNAPSHOT, SEAL, PUBLISH, told top to bottom
//!   shards        a source for each shard, and all snapshots at once
//!   coverage      every slot is in one of them
//!   restore       PREFLIGHT, LOAD, WORK into a running server
//!   restore_keys  the same key by key, into a cluster or in part
//!   copy export   the same steps for what is stored already
//!   stored        what a finished backup consists of
//!   impact        what a snapshot costs its source
//!   side          what a dump does not hold, stored beside it
//!   permit        leave to take a snapshot of a machine
//!   window        not at this time of day
//!   suspect       is the source still what it was
//!   record        changing and deleting a backup's record
//!   plan          changing what is told of a cluster and when its backups are taken
//!   adopt         making a cluster known, changing how it is reached, forgetting it
//!   restore_cluster  a backup becomes a cluster of its own on this machine; deleting one
//!   tend          looking after the clusters on this machine
//!   expiry        deleting what has had its time
//!   verify        proving a backup: walked again, or loaded by a throw-away server
//!   drills        which backup is proved by itself
//!   collect       removing files that belong to no backup
//!   rebuild       a backup's record out of what storage has
//!   download      what of a finished backup can be read, and its bytes
//!   fault         what a failure means for the next attempt
//! snapshot      one shard from socket to artifact: the pipeline
//!   payload       where the dump ends inside the payload
//!   encode        walk, compression, encryption, digest, parts
//!   pace          how fast all snapshots together may read
//!   waits         what is waited for, and how long
//! restore       one dump from storage into a running server
//!   preflight     may the target be filled
//!   load          it is told to follow us, and given the dump
//!   keyspace      has it what the manifest says
//!   release       letting go of it, and in which state it is
//! store         the store's contract
//!   lineage       what the source of a backup was
//!   place         places of a failure domain
//!   planned       how far the schedule of a cluster has come
//!   sled          the embedded store
//! fleet         the clusters that are known, and the last look at each
//!   check         what a backup would meet
//!   names         the names of shards, remembered
//! local         clusters on this machine: folders, ports and lives of servers that we start and keep up
//!   files         what a server is started on
//!   dump          the dump that it loads
//!   process       which processes are servers of ours
//!   ready         waiting for what a server is to become
//! artifacts     keys, uploads in parts, manifest and facts
//!   place         where a root is: a folder, or a prefix in the bucket of a store
//!   root          one root, whatever its kind
//!   files         a folder of this machine
//!   remote        a store that is reached over the network: requests, credentials, answers, uploads
//!   bucket        where dumps may be exported to
//!   transfer      moving what is stored
//!   listing       what lies below the roots
//!   decode        what stored bytes decode to, each held against the manifest
//!   dump          the dump of a shard, as it comes back
//!   encryption    to whom artifacts are encrypted, and reading them back
//! redis         talking to a server: connection, INFO, topology, choice of source
//!   cluster       which node owns which slots
//!   sentinel      where sentinels say that the servers are
//!   replication   the hand-shake of a replica, and the framings
//!   feed          we play the primary for one server
//!   rights        what the account may do, and the line that gives what is missing
//!   company       whether replicas synchronise beside us
//!   side          what a dump does not hold: users, modules, configuration, topology
//!   tls           whose certificates are believed
//!   engines       server programs of this machine, and which can load a dump
//!   drill         a throw-away server that loads a dump, and what it must have
//!   keys          many keys at a time into servers, each where its slot lives
//!   local         servers that we start ourselves
//!   machine       what this machine has left for them
//! auth          who may: subjects, roles, grants
//!   gate          who calls, by what a request carries
//!   tokens        the token file
//!   jwt           JSON Web Tokens: is one what it says
//!   jwks          the keys of their issuer
//!   exchange      short-lived tokens
//!   pace          how fast one subject may call
//! audit         one line of JSON for each call that changes something
//!   call          what becomes known of a call while it is answered
//!   file          appending, turning over, syncing
//! links         links that let their holder read one file for a short time
//! operation     states, events, and the one function between them
//! rdb           walking and checking a dump; knows bytes only
//!   entries       its keys one by one, with their values
//! backup        a backup's record
//!   retention     which backups may go by themselves, and why
//! cluster failure     identifiers and values
//!   window        times of the week in which no snapshot may start
//!   policy        when backups are to be taken by themselves, and how long they are kept
//!   calendar      the instants for which they are planned
//! secrets       sealing what callers entrust to us
//! pb            generated types of the wire, and the pool of descriptors
//! peer          who is at the other end of a connection
//! telemetry     logs
//!   metrics       what is counted and measured, for Prometheus
//! ```
//!
//! # Who may know whom
//!
//! Imports point down this list, never up, never in a circle; a test holds it.
//!
//! ```text
//! main
//! demo, server, offline
//! gateway, memstore, downloads
//! cli, api, config
//! schedule
//! executor
//! restore, snapshot, store, fleet, local
//! artifacts, redis
//! operation, rdb, auth, audit, links
//! cluster, backup, failure, secrets
//! pb, peer, telemetry
//! ```
//!
//! - Only `api`, `gateway`, `cli`, `demo` and `server` name the wire.
//! - Only `artifacts` names the object-store crate; only `store::sled` names sled.
//! - Only `operation` decides what may follow what. It has no input or output, no async, no clock.
//! - `redis` and `rdb` have never heard of operations.
//!
//! # One request
//!
//! ```text
//! answer   server -> api -> executor.create_backup -> store.create (durable) -> Operation
//! work     executor <- store.claim (the epoch rises)
//!          executor::backup -> snapshot (redis -> rdb -> artifacts) -> store.step(PUBLISH, manifest) -> artifacts
//!          executor -> store.complete (once)
//! ```
//!
//! Three orders that a reader can rely on:
//!
//! - Write before wake: an operation is durable before a worker hears of it.
//! - Register before look: subscribe to a wake-up, then query. The wake-up is a hint, the query is the truth.
//! - Bytes, then manifest (created once), then record.
//!
//! The epoch is in every write and in every key of storage: a late worker can litter, never overwrite.

pub mod api;
pub mod artifacts;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod downloads;
pub mod executor;
pub mod failure;
pub mod fleet;
pub mod gateway;
pub mod links;
pub mod local;
pub mod memstore;
pub mod offline;
pub mod operation;
pub mod pb;
pub mod peer;
pub mod rdb;
pub mod redis;
pub mod restore;
pub mod schedule;
pub mod secrets;
pub mod server;
pub mod snapshot;
pub mod store;
pub mod telemetry;
