//! Goal: whatever a dump with a right checksum holds, the walk ends in time and in little memory; and how often walk and servers
//! come to another verdict is known. Method: dumps of real servers, changed where their structure says that it hurts, walked in a
//! process with little memory, and loaded by a real server of the dump's version or a later one.
//!
//! `REDKEEP_MUTANTS=n` asks for so many, `REDKEEP_MUTANTS_SEED=n` for the same again, `REDKEEP_MUTANTS_KEEP=folder` keeps some of
//! those on which the verdicts differ.

mod judge;
mod layout;
mod mutate;

use judge::{Engine, Loaded};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redkeep::rdb::{Error, Walker};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Mutants of an ordinary run.
const MUTANTS: usize = 500;

/// Mutants that are made, walked and loaded before the next ones.
const BATCH: usize = 500;

/// Servers that load at the same time.
const SERVERS: usize = 2;

/// Memory of the process that walks, in KiB of addresses: the test binary itself takes most of it.
const WALK_KIB: u64 = 512 * 1024;

/// Processor time of the process that walks, in seconds: a batch takes less than one.
const WALK_SECS: u64 = 60;

/// Names the file with the mutants that are to be walked, each behind its length, and where the verdicts go.
const BATCH_VARIABLE: &str = "REDKEEP_MUTANTS_BATCH";

/// Most words that are told of a kind.
const REASONS: usize = 20;

/// Most mutants of a kind that are kept.
const KEPT: usize = 200;

/// What the walk says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Walked {
    Whole,
    Opaque,
    Refused,
}

impl Walked {
    const ALL: [Self; 3] = [Self::Whole, Self::Opaque, Self::Refused];

    fn letter(self) -> u8 {
        match self {
            Self::Whole => b'w',
            Self::Opaque => b'o',
            Self::Refused => b'r',
        }
    }
}

/// Walks a dump whole and in pieces; both must come to the same. With the walk's words, without places.
fn walk(dump: &[u8]) -> (Walked, String) {
    let in_pieces = |length: usize| {
        let mut walker = Walker::new();
        for piece in dump.chunks(length.max(1)) {
            match walker.feed(piece) {
                Ok(taken) if taken == piece.len() => {}
                Ok(_) | Err(Error::TrailingBytes { .. }) => return Err(Error::TrailingBytes { offset: walker.bytes() }),
                Err(error) => return Err(error),
            }
        }
        walker.finish()
    };
    let whole = in_pieces(dump.len());
    assert_eq!(in_pieces(7), whole, "the cuts decide");
    match whole {
        Ok(summary) => match summary.opaque {
            None => (Walked::Whole, String::new()),
            Some(opaque) => (Walked::Opaque, opaque.to_string()),
        },
        Err(Error::Malformed { what, .. }) => (Walked::Refused, what.to_owned()),
        Err(error) => (Walked::Refused, error.to_string()),
    }
}

/// A dump that is changed, with what is known of its structure.
struct Seed {
    name: String,
    bytes: Vec<u8>,
    layout: layout::Layout,
    engine: Engine,
}

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures");
    let files = std::fs::read_dir(folder).expect("the fixtures are there").map(|entry| entry.expect("an entry").path());
    let mut dumps: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|extension| extension == "rdb")).collect();
    dumps.sort();
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    dumps.iter().map(|path| (name(path), std::fs::read(path).expect("a fixture"))).collect()
}

/// The fixtures that a server here can load.
fn seeds() -> Vec<Seed> {
    let seed = |(name, bytes): (String, Vec<u8>)| {
        let engine = judge::engine_for(&bytes)?;
        Some(Seed { layout: layout::Layout::of(&bytes)?, name, bytes, engine })
    };
    fixtures().into_iter().filter_map(seed).collect()
}

/// Walks what a file holds, for a parent that watches; else the fixtures. So it is a test of its own, too.
#[test]
fn the_walk_of_a_batch_stays_within_its_bounds() {
    let Ok(path) = std::env::var(BATCH_VARIABLE) else {
        let dumps = fixtures();
        assert!(dumps.len() >= 5);
        for (name, dump) in dumps {
            assert_eq!(walk(&dump).0, Walked::Whole, "{name}");
        }
        return;
    };
    let batch = std::fs::read(&path).expect("the batch");
    let mut rest = &batch[..];
    let mut verdicts = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (dump, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        let (verdict, words) = walk(dump);
        verdicts.push(verdict.letter());
        verdicts.extend(words.bytes().filter(|byte| *byte != b'\n'));
        verdicts.push(b'\n');
        rest = after;
    }
    std::fs::write(format!("{path}.verdicts"), verdicts).expect("the verdicts");
}

/// The verdicts of the walk on some mutants, by a process that may take little of anything.
fn walked(folder: &Path, mutants: &[Vec<u8>]) -> Vec<(Walked, String)> {
    let path = folder.join("batch");
    let mut batch = Vec::new();
    for mutant in mutants {
        batch.extend_from_slice(&u32::try_from(mutant.len()).expect("a small dump").to_le_bytes());
        batch.extend_from_slice(mutant);
    }
    std::fs::write(&path, batch).expect("the batch");
    let limits = format!("ulimit -v {WALK_KIB} && ulimit -t {WALK_SECS} && exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &limits])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "mutants::the_walk_of_a_batch_stays_within_its_bounds", "--test-threads", "1"])
        .env(BATCH_VARIABLE, &path)
        .output()
        .expect("the walk begins");
    assert!(output.status.success(), "the walk of {}: {output:?}", path.display());
    let verdicts = std::fs::read_to_string(folder.join("batch.verdicts")).expect("the verdicts");
    let verdict = |line: &str| {
        let letter = line.bytes().next().expect("a verdict");
        (*Walked::ALL.iter().find(|walked| walked.letter() == letter).expect("a verdict"), line[1..].to_owned())
    };
    let verdicts: Vec<_> = verdicts.lines().map(verdict).collect();
    assert_eq!(verdicts.len(), mutants.len());
    verdicts
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}

#[test]
fn mutants_are_walked_and_loaded() {
    let seeds = seeds();
    if seeds.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "no server here can load a fixture");
        eprintln!("SKIPPED: no server here can load a fixture");
        return;
    }
    let total = number("REDKEEP_MUTANTS").map_or(MUTANTS, |total| usize::try_from(total).expect("a number of mutants"));
    let first_seed = number("REDKEEP_MUTANTS_SEED").unwrap_or_else(|| rand::rng().random());
    let kept = std::env::var_os("REDKEEP_MUTANTS_KEEP").map(PathBuf::from);
    println!("{total} mutants, REDKEEP_MUTANTS_SEED={first_seed}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for seed in &seeds {
        assert_eq!(judge::load(&seed.engine, &seed.bytes, folder.path()).0, Loaded::Serves, "{} is no seed", seed.name);
        let (with, sealed) = (seed.bytes.len(), mutate::sealed(&seed.bytes[..seed.bytes.len() - 8]));
        assert_eq!(sealed.len(), with);
        assert_eq!(walk(&sealed).0, Walked::Whole, "{} is no seed", seed.name);
    }

    let began = Instant::now();
    let mut table: BTreeMap<(Walked, Loaded), usize> = BTreeMap::new();
    let mut reasons: BTreeMap<(Walked, Loaded), BTreeMap<String, usize>> = BTreeMap::new();
    let mut ways: BTreeMap<&'static str, BTreeMap<(Walked, Loaded), usize>> = BTreeMap::new();
    let mut done = 0;
    while done < total {
        let count = BATCH.min(total - done);
        let made: Vec<(usize, Vec<u8>, &'static str)> = (done..done + count)
            .map(|number| {
                let mut random = StdRng::seed_from_u64(first_seed.wrapping_add(number as u64));
                let which = random.random_range(0..seeds.len());
                let (bytes, way) = mutate::mutant(&mut random, &seeds[which].bytes, &seeds[which].layout);
                (which, bytes, way)
            })
            .collect();
        let bytes: Vec<Vec<u8>> = made.iter().map(|(_, bytes, _)| bytes.clone()).collect();
        let verdicts = walked(folder.path(), &bytes);
        let loads = judge::load_all(made.iter().map(|(which, bytes, _)| (&seeds[*which].engine, bytes.as_slice())).collect(), folder.path(), SERVERS);
        for (at, ((which, bytes, way), ((walked, walk_words), (loaded, load_words)))) in made.iter().zip(verdicts.into_iter().zip(loads)).enumerate() {
            let told = (walked, loaded);
            *table.entry(told).or_default() += 1;
            *ways.entry(way).or_default().entry(told).or_default() += 1;
            let differs = matches!(told, (Walked::Whole, Loaded::Refused | Loaded::Died | Loaded::Hung) | (Walked::Refused, Loaded::Serves));
            if differs {
                let words = if walked == Walked::Refused { walk_words } else { kind_of(&load_words) };
                *reasons.entry(told).or_default().entry(words).or_default() += 1;
            }
            if let Some(kept) = kept.as_ref().filter(|_| differs && table[&told] <= KEPT) {
                let kind = kept.join(format!("{walked:?}-{loaded:?}").to_lowercase());
                std::fs::create_dir_all(&kind).expect("a folder to keep mutants in");
                let name = format!("{}-{way}-{}", first_seed.wrapping_add((done + at) as u64), seeds[*which].name);
                std::fs::write(kind.join(name), bytes).expect("a mutant is kept");
            }
        }
        done += count;
        if done % (10 * BATCH) == 0 || done == total {
            println!("{done} mutants in {} s", began.elapsed().as_secs());
            print(&table);
        }
    }
    for (way, table) in &ways {
        println!("by {way}:");
        print(table);
    }
    for ((walked, loaded), words) in &reasons {
        println!("{walked:?}, yet {loaded:?}:");
        let mut words: Vec<_> = words.iter().collect();
        words.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        words.iter().take(REASONS).for_each(|(words, count)| println!("  {count} {words}"));
    }
    assert_eq!(table.values().sum::<usize>(), total);
    // A run that met only one verdict has tested nothing.
    for walked in [Walked::Whole, Walked::Refused] {
        assert!(total < 100 || table.keys().any(|(verdict, _)| *verdict == walked), "no mutant was {walked:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(3600).max(Duration::from_millis(500) * u32::try_from(total).unwrap_or(u32::MAX)));
}

/// The words of a server without what is of one dump alone: numbers and names.
fn kind_of(words: &str) -> String {
    let words = words.split(['\'', ':', '(']).next().unwrap_or_default();
    words.chars().filter(|c| !c.is_ascii_digit()).take(80).collect::<String>().trim().to_owned()
}

fn print(table: &BTreeMap<(Walked, Loaded), usize>) {
    for walked in Walked::ALL {
        let counts = Loaded::ALL.map(|loaded| format!("{loaded:?} {}", table.get(&(walked, loaded)).copied().unwrap_or_default()));
        println!("  {walked:?}: {}", counts.join(", "));
    }
}
