//! Goal: the house keeps its order: rooms know only those below them. Method: the paths in the sources, read as text.
//!
//! What is generated is not looked at; the tests at the foot of a file may know what they like.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The rooms, from the top down. A path may lead down, or along a line as long as it leads nowhere back.
const ROOMS: [&[&str]; 10] = [
    &["main"],
    &["demo", "server", "offline"],
    &["gateway", "memstore", "downloads"],
    &["cli", "api", "config"],
    &["executor"],
    &["restore", "snapshot", "store", "fleet"],
    &["artifacts", "redis"],
    &["operation", "rdb", "auth", "audit", "links"],
    &["cluster", "backup", "failure", "secrets"],
    &["pb", "peer", "telemetry"],
];

/// What only some may name, with the files that may, by the beginning of their path.
const RESERVED: [(&str, &[&str]); 6] = [
    ("crate::pb", &["api", "cli", "demo", "gateway", "server"]),
    ("object_store", &["artifacts"]),
    ("sled", &["store/sled"]),
    ("unsafe", &[]),
    ("todo!", &[]),
    ("unimplemented!", &[]),
];

/// The line of a room; 0 is the top.
fn line_of(room: &str) -> Option<usize> {
    ROOMS.iter().position(|line| line.contains(&room))
}

/// The room of a file, by its path below `src`.
fn room_of(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap_or(file)
}

/// The source without comments and without the tests at its foot. Lines keep their numbers.
fn code(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let foot = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
    let without_comment = |line: &&str| match line.find("//").filter(|&at| line[..at].trim_end().is_empty() || line[..at].ends_with(' ')) {
        Some(at) => line[..at].to_owned(),
        None => (*line).to_owned(),
    };
    lines[..foot.unwrap_or(lines.len())].iter().map(without_comment).collect::<Vec<_>>().join("\n")
}

fn line_number(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The rooms that a source names, each with its line: `crate::room`, also in braces and at any depth of a path.
fn named_rooms(code: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (at, word) in code.match_indices("crate::") {
        let rest = &code[at + word.len()..];
        let Some(inside) = rest.strip_prefix('{') else {
            named.push((line_number(code, at), identifier(rest).to_owned()));
            continue;
        };
        // Only what stands directly in these braces is a room.
        let (mut depth, mut begins) = (0, true);
        for (offset, c) in inside.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                _ if begins && !c.is_whitespace() => {
                    named.push((line_number(code, at + word.len() + 1 + offset), identifier(&inside[offset..]).to_owned()));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    named
}

/// Whether the code names `word` as a whole word at `at`, and a crate's name as a crate.
fn names(code: &str, word: &str, at: usize) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let (before, after) = (&code[..at], &code[at + word.len()..]);
    if before.ends_with(is_part) || after.starts_with(is_part) || before.ends_with('"') {
        return false;
    }
    match word {
        // Of these there are modules of ours, named by a path.
        "sled" | "object_store" => after.starts_with("::") && !before.ends_with("::") && !code.contains(&format!("store::{word}")),
        _ => true,
    }
}

/// What is wrong with one file, each with file and line; its paths along its own line go to `along`.
fn faults(file: &str, text: &str, along: &mut BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let (room, code) = (room_of(file), code(text));
    let Some(line) = line_of(room) else { return vec![format!("{file}:1: the room {room} has no place in the list")] };
    let mut faults = Vec::new();
    for (number, named) in named_rooms(&code) {
        match line_of(&named) {
            _ if named == room => {}
            None => faults.push(format!("{file}:{number}: {named} has no place in the list")),
            Some(other) if other < line => faults.push(format!("{file}:{number}: {room} may not know {named}")),
            Some(other) if other == line => drop(along.entry(room.to_owned()).or_default().insert(named)),
            Some(_) => {}
        }
    }
    for (word, allowed) in RESERVED {
        if allowed.iter().any(|start| file.starts_with(start)) {
            continue;
        }
        let found = code.match_indices(word).filter(|(at, _)| names(&code, word, *at));
        faults.extend(found.map(|(at, _)| format!("{file}:{}: {word} is not named here", line_number(&code, at))));
    }
    faults
}

/// A circle among rooms of one line, if there is one.
fn circle(along: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let reaches = |from: &str| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(room) = next.pop() {
            let further = along.get(&room).into_iter().flatten().filter(|room| reached.insert((*room).clone()));
            next.extend(further.cloned());
        }
        reached
    };
    along.keys().find(|room| reaches(room).contains(*room)).cloned()
}

/// Every source file by its path below `src`, with its text.
fn sources() -> Vec<(String, String)> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && path.file_name().is_some_and(|name| name != "tests.rs") {
                found.push((path.strip_prefix(root).unwrap().display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found.sort();
    found
}

#[test]
fn every_path_leads_down() {
    let mut along = BTreeMap::new();
    let sources = sources();
    assert!(sources.len() > 50, "the sources were found");
    let found: Vec<String> = sources.iter().filter(|(file, _)| file != "lib.rs").flat_map(|(file, text)| faults(file, text, &mut along)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    assert_eq!(circle(&along), None, "rooms of one line know each other in a circle: {along:?}");
}

#[test]
fn the_front_page_is_true() {
    let sources = sources();
    let front = &sources.iter().find(|(file, _)| file == "lib.rs").unwrap().1;
    let page: Vec<&str> = front.lines().filter_map(|line| line.strip_prefix("//!")).collect();
    let drawings: Vec<&[&str]> = page.split(|line| line.trim().starts_with("```")).skip(1).step_by(2).collect();
    let [rooms, order, ..] = drawings.as_slice() else { panic!("the page has a drawing of the rooms and one of their order") };

    let drawn: BTreeSet<&str> = rooms.iter().flat_map(|line| line.split("  ").next().unwrap_or_default().split_whitespace()).collect();
    let built: BTreeSet<&str> = sources.iter().map(|(file, _)| room_of(file)).filter(|room| *room != "lib").collect();
    for room in built {
        assert!(drawn.contains(room) || drawn.contains(format!("{room}.rs").as_str()), "{room} is not drawn");
    }
    let order: Vec<Vec<&str>> = order.iter().map(|line| line.trim().split(", ").collect()).collect();
    assert_eq!(order, ROOMS, "the order of the rooms as drawn is the order that is checked");

    let mut room = "";
    for line in rooms.iter() {
        let line = line.strip_prefix(' ').unwrap_or(line);
        let name = line.trim_start().split(' ').next().unwrap_or_default();
        match line.strip_prefix("  ") {
            Some(_) => {
                let found = sources.iter().any(|(file, _)| *file == format!("{room}/{name}.rs"));
                assert!(found, "{room}/{name}.rs is drawn and not there");
            }
            None => room = name,
        }
    }
}

#[test]
fn the_checker_sees_what_is_wrong() {
    let table: [(&str, &str, &[&str]); 13] = [
        ("store.rs", "use crate::operation::Operation;\nuse crate::backup::{self, Backup};", &[]),
        ("store.rs", "\nuse crate::executor::Executor;", &["store.rs:2: store may not know executor"]),
        ("redis/facts.rs", "fn f() {\n    crate::operation::f();\n    crate::store::f()\n}", &["redis/facts.rs:3: redis may not know store"]),
        ("rdb.rs", "use crate::{\n    cluster::{A, B},\n    api,\n};", &["rdb.rs:3: rdb may not know api"]),
        ("rdb.rs", "// use crate::api;\n/// See [`crate::api`].\nlet a = 1; // crate::api", &[]),
        ("rdb.rs", "struct A;\n#[cfg(test)]\nmod tests {\n    use crate::api;\n}", &[]),
        ("rdb.rs", "use crate::nonsense;", &["rdb.rs:1: nonsense has no place in the list"]),
        ("nonsense.rs", "", &["nonsense.rs:1: the room nonsense has no place in the list"]),
        ("executor/backup.rs", "use crate::pb;", &["executor/backup.rs:1: crate::pb is not named here"]),
        ("redis.rs", "use object_store::ObjectStore;", &["redis.rs:1: object_store is not named here"]),
        ("store.rs", "use sled::Db;", &["store.rs:1: sled is not named here"]),
        ("server.rs", "use crate::store::sled::{self, SledStore};\nfn f() { sled::f() }", &[]),
        ("rdb.rs", "fn f() { todo!() }\nunsafe fn g() {}", &["rdb.rs:2: unsafe is not named here", "rdb.rs:1: todo! is not named here"]),
    ];
    for (file, text, expected) in table {
        assert_eq!(faults(file, text, &mut BTreeMap::new()), expected, "{text}");
    }
    let mut along = BTreeMap::new();
    faults("redis.rs", "use crate::artifacts;", &mut along);
    assert_eq!(circle(&along), None);
    faults("artifacts.rs", "use crate::redis;", &mut along);
    assert!(circle(&along).is_some());
}
