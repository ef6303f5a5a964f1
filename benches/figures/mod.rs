//! Figures against their goals, told alike by every bench: medians of rounds with their spread. A goal that is missed is told
//! and is no failure.

#![allow(dead_code, reason = "every bench uses a part")]

use std::fs;
use std::path::Path;

/// Ticks of processor time in a second, in `/proc`.
///
/// Source: Linux, `USER_HZ`, the same on every architecture that we build for.
const TICKS: f64 = 100.0;

/// A number from the environment.
pub fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}

/// Whether JSON is asked for beside the table.
pub fn wants_json() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    std::env::var("REDKEEP_BENCH_OUTPUT").is_ok_and(|form| form == "json") || arguments.windows(2).any(|pair| pair == ["-o", "json"])
}

/// A disk in memory would make every sync free.
///
/// Source: `linux/magic.h`, the number of tmpfs.
pub fn refuse_memory(folder: &Path) {
    let kind = rustix::fs::statfs(folder).expect("the file system can be asked").f_type;
    assert!(kind as u32 != 0x0102_1994, "{} lies in memory; the bench needs a disk", folder.display());
}

/// The bytes of values and the rounds that the environment asks for, and a folder on a real disk below target in which all temporary
/// files lie from now on. Its name begins with `prefix`.
pub fn ground(bytes: u64, rounds: u64, prefix: &str) -> (u64, u64, tempfile::TempDir) {
    let (bytes, rounds) = (number("REDKEEP_BENCH_BYTES", bytes), number("REDKEEP_BENCH_ROUNDS", rounds).max(1));
    let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder below target");
    refuse_memory(folder.path());
    tempfile::env::override_temp_dir(folder.path()).expect("nobody chose a folder before");
    (bytes, rounds, folder)
}

/// The load average of the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// Processor time of a process, in seconds, in user and system mode.
pub fn cpu_of(pid: u32) -> f64 {
    ticks(&format!("/proc/{pid}/stat"), 11)
}

/// Processor time of all children that were waited for, in seconds.
pub fn cpu_of_children() -> f64 {
    ticks("/proc/self/stat", 13)
}

/// Two neighbouring counts of ticks, added, in seconds. `place` counts from the field after the command.
///
/// Source: proc(5), `utime stime cutime cstime` of `/proc/PID/stat`.
fn ticks(path: &str, place: usize) -> f64 {
    let text = fs::read_to_string(path).expect("the process is there");
    // The command may hold blanks and parentheses; nothing after the last parenthesis does.
    let (_, fields) = text.rsplit_once(") ").expect("the command stands in parentheses");
    fields.split(' ').skip(place).take(2).map(|field| field.parse::<f64>().expect("a count")).sum::<f64>() / TICKS
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// This, or less.
    AtMost(f64),
    /// This, or more.
    AtLeast(f64),
    /// It is told for its own sake.
    None,
}

/// One figure against its goal.
pub struct Finding {
    pub name: &'static str,
    pub unit: &'static str,
    pub value: f64,
    /// The least and the most of the single rounds.
    pub spread: (f64, f64),
    pub goal: Goal,
    /// What it was made of.
    pub detail: String,
}

impl Finding {
    /// `None` when there is no goal.
    fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::AtMost(goal) => Some(self.value <= goal),
            Goal::AtLeast(goal) => Some(self.value >= goal),
            Goal::None => None,
        }
    }

    /// The median of one row over that of another; the spread is that of the rounds. `tell` words a median.
    pub fn ratio(name: &'static str, goal: Goal, ours: &[f64], theirs: &[f64], tell: impl Fn(f64) -> String) -> Self {
        let each: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        let (ours, theirs) = (median(ours), median(theirs));
        Self { name, unit: "", value: ours / theirs, spread: spread(&each), goal, detail: format!("{} / {}", tell(ours), tell(theirs)) }
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The least and the most.
pub fn spread(values: &[f64]) -> (f64, f64) {
    let sorted = sorted(values);
    (sorted[0], sorted[sorted.len() - 1])
}

/// Prints the table under a line that says what was done.
pub fn print(title: &str, findings: &[Finding]) {
    println!("\n{title}");
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(["WHAT", "MEDIAN", "SPREAD", "GOAL", "", "FROM"]);
    for finding in findings {
        let Finding { name, unit, value, spread: (least, most), goal, detail, .. } = finding;
        let goal = match goal {
            Goal::AtMost(goal) => format!("<= {goal:.2} {unit}"),
            Goal::AtLeast(goal) => format!(">= {goal:.2} {unit}"),
            Goal::None => String::new(),
        };
        let verdict = finding.met().map_or("", |met| if met { "met" } else { "missed" });
        table.add_row([(*name).to_owned(), format!("{value:.2} {unit}"), format!("{least:.2}-{most:.2}"), goal, verdict.to_owned(), detail.clone()]);
    }
    println!("{table}");
}

/// The findings as JSON.
pub fn json(findings: &[Finding]) -> serde_json::Value {
    let one = |finding: &Finding| {
        let goal = match finding.goal {
            Goal::AtMost(goal) | Goal::AtLeast(goal) => Some(goal),
            Goal::None => None,
        };
        serde_json::json!({
            "name": finding.name, "unit": finding.unit, "median": finding.value, "least": finding.spread.0, "most": finding.spread.1,
            "goal": goal, "met": finding.met(), "from": finding.detail,
        })
    };
    findings.iter().map(one).collect()
}
