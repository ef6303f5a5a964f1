//! What a call costs, held against servers that do nothing but answer: a bare tonic server and a bare axum handler.
//!
//! All of them are processes of their own, answer with the very same operation of about 1 KiB, without TLS and without delay
//! for small packets (TCP_NODELAY), and are asked by one generator in turns, so that what else the machine does falls on all
//! of them alike. Ours also finds out who asks, by token, whether they may, and reads the operation from its store. Told are
//! medians with their spread, each against its goal. A goal that is missed is told and is no failure.
//!
//! ```text
//! REDKEEP_BENCH_SECS=3 REDKEEP_BENCH_ROUNDS=5 REDKEEP_BENCH_OUTPUT=json cargo bench --bench requests
//! cargo bench --bench requests -- -o json
//! ```

use bare::Bare;
use figures::{Finding, Goal, cpu_of, load, median, number, spread};
use it::support::scripted::ScriptedRedis;
use it::support::service::{OPERATION, Process, Setup, error_of};
use load_generator::{Target, Turn};
use prost::Message;
use redkeep::pb::{operation as wire, own};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

mod bare;
#[path = "../figures/mod.rs"]
mod figures;
#[path = "../../tests/it"]
mod it {
    pub mod support;
}
mod load_generator;

/// Rounds, unless `REDKEEP_BENCH_ROUNDS` tells another number.
const ROUNDS: u64 = 5;
/// Seconds of a turn, unless `REDKEEP_BENCH_SECS` tells another number.
const SECONDS: u64 = 3;
/// Calls at once of the busy kinds.
const STREAMS: usize = 64;
/// Connections of the gRPC kinds. HTTP/1.1 has one for each call at once.
const CONNECTIONS: usize = 4;
/// Bytes of the answer, about.
const ANSWER_BYTES: usize = 1024;
/// Longest wait for the service to stop.
const REST: Duration = Duration::from_secs(60);

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match Bare::asked_for() {
        Some(bare) => runtime.block_on(bare.serve()),
        None => runtime.block_on(bench()),
    }
}

async fn bench() {
    let (rounds, seconds) = (number("REDKEEP_BENCH_ROUNDS", ROUNDS).max(1), number("REDKEEP_BENCH_SECS", SECONDS).max(1));
    let (service, token, operation) = service().await;
    let answer = service.setup.folder().join("operation.binpb");
    std::fs::write(&answer, operation.encode_to_vec()).expect("the answer is written");
    let ours = Server { pid: service.pid(), address: service.endpoint.trim_start_matches("http://").to_owned() };
    let asked = |server: &Server| Target { address: server.address.clone(), token: token.clone(), operation_id: operation.id.clone() };

    // The bare handler serves the JSON that ours gives, to the byte.
    let json = load_generator::get(&asked(&ours)).await;
    let told = service.setup.folder().join("operation.json");
    std::fs::write(&told, &json).expect("the answer is written");
    let bare_grpc = Bare::Grpc.start(&answer).await;
    let bare_rest = Bare::Rest.start(&told).await;
    assert_eq!(load_generator::call(&asked(&bare_grpc.server)).await, operation, "both servers answer alike");
    assert_eq!(json.len(), load_generator::get(&asked(&bare_rest.server)).await.len(), "both handlers answer alike");

    let load_before = load();
    let kinds = [
        Kind { name: "gRPC, 64 streams", streams: STREAMS, connections: CONNECTIONS, bare: &bare_grpc.server, rest: false },
        Kind { name: "gRPC, 1 stream", streams: 1, connections: 1, bare: &bare_grpc.server, rest: false },
        Kind { name: "REST, 64 connections", streams: STREAMS, connections: STREAMS, bare: &bare_rest.server, rest: true },
    ];
    let mut runs: Vec<[Vec<Measured>; 2]> = kinds.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    for round in 0..rounds {
        for (kind, runs) in kinds.iter().zip(&mut runs) {
            // Whoever goes first changes from round to round.
            for turn in 0..2 {
                let which = usize::from((turn + round) % 2 == 1);
                let server = [&ours, kind.bare][which];
                let measured = kind.measure(server, &asked(server), Duration::from_secs(seconds)).await;
                let who = ["redkeep", "bare"][which];
                eprintln!(
                    "round {}: {:20} {who:8} {:8.0}/s, {:6.1} us CPU a call, p99 {:7.0} us",
                    round + 1,
                    kind.name,
                    measured.per_second,
                    measured.cpu * 1e6,
                    measured.p99 * 1e6
                );
                runs[which].push(measured);
            }
        }
    }

    let findings = findings(&runs);
    let sizes = [operation.encoded_len(), json.len()];
    let title = format!(
        "an operation of {} bytes in protobuf and {} in JSON, {rounds} rounds of {seconds} s, load {load_before:.2} before and {:.2} after",
        sizes[0],
        sizes[1],
        load()
    );
    figures::print(&title, &findings);
    if figures::wants_json() {
        println!("{}", serde_json::json!({ "bytes": sizes, "rounds": rounds, "seconds": seconds, "findings": figures::json(&findings) }));
    }
    drop((bare_grpc, bare_rest));
    service.terminate(REST).await;
}

/// A server and its process.
struct Server {
    pid: u32,
    address: String,
}

/// A way to ask.
struct Kind<'a> {
    name: &'static str,
    streams: usize,
    connections: usize,
    bare: &'a Server,
    rest: bool,
}

/// What one turn has shown: times in seconds.
#[derive(Clone, Copy, Debug)]
struct Measured {
    per_second: f64,
    /// Processor time of the server for one call.
    cpu: f64,
    p50: f64,
    p99: f64,
}

impl Kind<'_> {
    async fn measure(&self, server: &Server, target: &Target, time: Duration) -> Measured {
        let connected = load_generator::connect(target, self.streams, self.connections, self.rest).await;
        let cpu = cpu_of(server.pid);
        let Turn { mut latencies, elapsed } = connected.ask(time).await;
        let cpu = cpu_of(server.pid) - cpu;
        latencies.sort_unstable();
        let count = latencies.len();
        assert!(count > 0, "nothing was answered within {time:?}");
        let at = |share: f64| f64::from(latencies[((count - 1) as f64 * share) as usize]) / 1e9;
        Measured { per_second: count as f64 / elapsed.as_secs_f64(), cpu: cpu / count as f64, p50: at(0.5), p99: at(0.99) }
    }
}

/// The service with tokens, the token of a viewer, and an operation that has ended and is about as long as wanted.
async fn service() -> (Process, String, wire::Operation) {
    let source = ScriptedRedis::willing().await;
    let open = Setup::new().cluster("main", &[&source.address()], "").spawn(&[]).await;
    let backup = open.clients.take("main", "first").await;
    // The answer to a change is the whole backup, and labels make it as long as one likes.
    let mut labels = std::collections::BTreeMap::new();
    let mut operation = wire::Operation::default();
    for number in 0..64 {
        labels.insert(format!("label-{number:02}"), "x".repeat(32));
        let mask = prost_types::FieldMask { paths: vec!["labels".to_owned()] };
        let request = own::UpdateBackupRequest { backup_id: backup.id.clone(), update_mask: Some(mask), labels: labels.clone(), ..Default::default() };
        let started = open.clients.backups.clone().update(request).await.expect("the change is accepted").into_inner();
        operation = open.clients.ended(&started.id, OPERATION).await;
        assert!(error_of(&operation).is_none(), "{operation:#?}");
        if operation.encoded_len() >= ANSWER_BYTES {
            break;
        }
    }
    let setup = open.terminate(REST).await;

    let file = setup.folder().join("tokens");
    let token = token(&file);
    let file = file.to_str().expect("the folder's name is text").to_owned();
    let service = setup.spawn(&[("REDKEEP_AUTH__MODE", "tokens"), ("REDKEEP_AUTH__FILE", &file)]).await;
    (service, token, operation)
}

/// Makes the token of a viewer, as a user does.
fn token(file: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redkeep"));
    command.args(["token", "create", "--subject", "bench", "--folder", "default", "--role", "viewer", "--file"]).arg(file);
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).expect("a token is text");
    printed.split_whitespace().last().expect("a token is printed").to_owned()
}

fn findings(runs: &[[Vec<Measured>; 2]]) -> Vec<Finding> {
    let row = |kind: usize, which: usize, of: fn(&Measured) -> f64| runs[kind][which].iter().map(of).collect::<Vec<_>>();
    let ratio =
        |name, goal, kind, of: fn(&Measured) -> f64, tell: &dyn Fn(f64) -> String| Finding::ratio(name, goal, &row(kind, 0, of), &row(kind, 1, of), tell);
    let rate = |value: f64| format!("{value:.0}/s");
    let micros = |value: f64| format!("{:.1} us", value * 1e6);
    let (grpc, one, rest) = (0, 1, 2);
    let p50 = row(grpc, 0, |measured| measured.p50 * 1e6);
    vec![
        ratio("gRPC calls a second / bare tonic", Goal::AtLeast(0.8), grpc, |measured| measured.per_second, &rate),
        ratio("gRPC server CPU a call / bare tonic", Goal::AtMost(1.25), grpc, |measured| measured.cpu, &micros),
        ratio("gRPC p99 / bare tonic", Goal::AtMost(1.5), grpc, |measured| measured.p99, &micros),
        ratio("gRPC p50 / bare tonic", Goal::None, grpc, |measured| measured.p50, &micros),
        Finding { name: "gRPC p50", unit: "us", value: median(&p50), spread: spread(&p50), goal: Goal::None, detail: "64 streams".to_owned() },
        ratio("gRPC calls a second, one stream / bare", Goal::None, one, |measured| measured.per_second, &rate),
        ratio("REST calls a second / bare axum", Goal::AtLeast(0.4), rest, |measured| measured.per_second, &rate),
        ratio("REST server CPU a call / bare axum", Goal::None, rest, |measured| measured.cpu, &micros),
        ratio("REST p99 / bare axum", Goal::None, rest, |measured| measured.p99, &micros),
    ]
}
