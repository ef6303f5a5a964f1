//! Counting what the records say.

use super::minimum::Seen;
use super::sketch::Sketch;
use super::slots::{self, Placement};
use super::summary::{Aux, BigKey, Database, Slots, Type, TypeCount};
use super::{DATABASE_LIMIT, Error, Options};
use std::collections::BTreeMap;

/// Most module names kept.
const MODULE_LIMIT: usize = 64;

/// Most keys kept as the biggest.
const BIGGEST: usize = 16;

/// Most places of a mismatch that are told by name.
const MISMATCH_PLACES: usize = 3;

/// Longest AUX value kept, in bytes.
const AUX_BYTES: usize = 128;

/// The AUX fields whose values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    RedisVer,
    ValkeyVer,
    RedisBits,
    Ctime,
    UsedMem,
    ReplId,
    ReplOffset,
    AofBase,
    /// Valkey 8 says of a slot in an AUX field what others say in a record of its own.
    SlotInfo,
}

impl Field {
    /// The field of that name, when it is one of these.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"redis-ver" => Self::RedisVer,
            b"valkey-ver" => Self::ValkeyVer,
            b"redis-bits" => Self::RedisBits,
            b"ctime" => Self::Ctime,
            b"used-mem" => Self::UsedMem,
            b"repl-id" => Self::ReplId,
            b"repl-offset" => Self::ReplOffset,
            b"aof-base" | b"aof-preamble" => Self::AofBase,
            b"slot-info" => Self::SlotInfo,
            _ => return None,
        })
    }
}

/// One database while it is counted.
#[derive(Debug)]
struct Counts {
    index: u32,
    declared: Option<(u64, u64)>,
    /// In the order of [`Type::ALL`].
    types: [TypeCount; Type::ALL.len()],
}

/// Counts by database and type, and by slot where that is asked for. Grows with the number of databases, modules and nothing
/// else.
#[derive(Debug, Default)]
pub(super) struct Tally {
    databases: Vec<Counts>,
    /// Positions in `databases`, by number.
    positions: BTreeMap<u32, usize>,
    /// Position of the database in use; none before the first.
    current: Option<usize>,
    keys: u64,
    biggest: Vec<BigKey>,
    functions: u64,
    modules: Vec<String>,
    aux: Aux,
    slots: Option<Slots>,
    placement: Option<Placement>,
    sketch: Option<Sketch>,
    unplaced: u64,
    seen: Seen,
}

/// What [`Tally::finish`] has to say.
#[derive(Debug)]
pub(super) struct Totals {
    pub(super) databases: Vec<Database>,
    pub(super) functions: u64,
    pub(super) modules: Vec<String>,
    pub(super) biggest: Vec<BigKey>,
    pub(super) aux: Aux,
    pub(super) slots: Option<Slots>,
    pub(super) seen: Seen,
    pub(super) stray_keys: Option<u64>,
    pub(super) unplaced_keys: u64,
    pub(super) sketch: Vec<u64>,
    pub(super) counts_match: Option<bool>,
    pub(super) mismatch: Option<String>,
}

impl Tally {
    pub(super) fn new(options: Options) -> Self {
        Self { placement: options.slots.map(Placement::new), sketch: options.sketch.map(|key| Sketch::new(&key)), ..Self::default() }
    }

    /// Whether [`Tally::name`] is to be told the names of keys.
    #[inline]
    pub(super) fn names(&self) -> bool {
        self.placement.is_some() || self.sketch.is_some()
    }

    /// The name of a key of the current database; `None` when it is too long to be looked at.
    #[inline]
    pub(super) fn name(&mut self, name: Option<&[u8]>, expires: bool) -> Result<(), Error> {
        let Some(name) = name else {
            self.unplaced += 1;
            return Ok(());
        };
        let database = self.current()?.index;
        if let Some(placement) = &mut self.placement {
            placement.key(name, expires);
        }
        if let Some(sketch) = &mut self.sketch {
            sketch.key(database, name);
        }
        Ok(())
    }

    /// Keys so far.
    pub(super) fn keys(&self) -> u64 {
        self.keys
    }

    /// A record begins with this opcode or type.
    #[inline]
    pub(super) fn record(&mut self, byte: u8) {
        self.seen.add(byte);
    }

    /// The keys that follow are of database `index`.
    pub(super) fn select(&mut self, index: u32) -> Result<(), Error> {
        self.enter(index).map(drop)
    }

    /// The source says how much the current database holds. The last word counts.
    pub(super) fn declare(&mut self, keys: u64, expiring: u64) -> Result<(), Error> {
        self.current()?.declared = Some((keys, expiring));
        Ok(())
    }

    /// The source says how much a slot holds.
    pub(super) fn slot(&mut self, slot: u64, keys: u64, expiring: u64) {
        if let Some(placement) = &mut self.placement {
            placement.declare(slot, keys, expiring);
        }
        let slots = self.slots.get_or_insert_default();
        slots.slots += 1;
        slots.keys = slots.keys.saturating_add(keys);
        slots.expiring = slots.expiring.saturating_add(expiring);
    }

    /// A key of the current database.
    #[inline]
    pub(super) fn key(&mut self, kind: Type, expires: bool, bytes: u64) -> Result<(), Error> {
        let counts = self.current()?;
        let database = counts.index;
        let count = &mut counts.types[kind as usize];
        count.keys += 1;
        count.expiring += u64::from(expires);
        count.bytes += bytes;
        self.keys += 1;
        if self.biggest.last().is_none_or(|least| bytes > least.bytes) || self.biggest.len() < BIGGEST {
            self.rank(BigKey { database, kind, bytes });
        }
        Ok(())
    }

    /// A library of functions.
    pub(super) fn function(&mut self) {
        self.functions += 1;
    }

    /// A module, by the identifier that its values carry.
    pub(super) fn module(&mut self, id: u64) {
        let name = module_name(id);
        if self.modules.len() < MODULE_LIMIT && !self.modules.contains(&name) {
            self.modules.push(name);
        }
    }

    /// The value of an AUX field. The last one counts.
    pub(super) fn aux(&mut self, field: Field, value: &[u8]) {
        if value.len() > AUX_BYTES || !value.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return;
        }
        let value = String::from_utf8_lossy(value).into_owned();
        let place = match field {
            Field::RedisVer => &mut self.aux.redis_ver,
            Field::ValkeyVer => &mut self.aux.valkey_ver,
            Field::RedisBits => &mut self.aux.redis_bits,
            Field::Ctime => &mut self.aux.ctime,
            Field::UsedMem => &mut self.aux.used_mem,
            Field::ReplId => &mut self.aux.repl_id,
            Field::ReplOffset => &mut self.aux.repl_offset,
            Field::AofBase => &mut self.aux.aof_base,
            Field::SlotInfo => {
                let numbers: Vec<Option<u64>> = value.split(',').map(|number| number.parse().ok()).collect();
                // Fields of other shapes are hints of writers yet to come.
                if let [Some(slot), Some(keys), Some(expiring), ..] = numbers[..] {
                    self.slot(slot, keys, expiring);
                }
                return;
            }
        };
        *place = Some(value);
    }

    /// Ends the count. `whole` says that every record was counted.
    pub(super) fn finish(self, whole: bool) -> Totals {
        let databases: Vec<Database> = self.positions.values().filter_map(|&position| self.databases.get(position)).map(Counts::database).collect();
        let (mismatch, declared) = if whole { self.compare(&databases) } else { (None, false) };
        Totals {
            databases,
            functions: self.functions,
            modules: self.modules,
            biggest: self.biggest,
            aux: self.aux,
            slots: self.slots,
            seen: self.seen,
            stray_keys: self.placement.as_ref().map(Placement::stray_keys),
            unplaced_keys: self.unplaced,
            sketch: self.sketch.map(Sketch::finish).unwrap_or_default(),
            counts_match: declared.then_some(mismatch.is_none()),
            mismatch,
        }
    }

    /// Where what was found is not what was declared, and whether anything was declared at all.
    fn compare(&self, databases: &[Database]) -> (Option<String>, bool) {
        let declared = |database: &Database| Some((database.declared_keys?, database.declared_expiring?));
        let by_database = databases.iter().filter_map(|database| {
            let (declared, found) = (declared(database)?, (database.keys, database.expiring));
            (declared != found).then(|| slots::words(&format!("database {}", database.index), declared, found))
        });
        let found = (self.keys, databases.iter().map(|database| database.expiring).sum());
        let in_sum = self.slots.and_then(|slots| slots.fault(found));
        let placement = self.placement.as_ref().filter(|_| self.slots.is_some() && self.unplaced == 0);
        let by_slot = placement.into_iter().flat_map(Placement::faults);
        let mut faults = by_database.chain(by_slot).chain(in_sum);
        let told: Vec<String> = faults.by_ref().take(MISMATCH_PLACES).collect();
        let more = faults.count();
        let words = told.join("; ") + &if more > 0 { format!("; and {more} more places") } else { String::new() };
        ((!words.is_empty()).then_some(words), self.slots.is_some() || databases.iter().any(|database| declared(database).is_some()))
    }

    /// The current database; number 0 before any was named.
    #[inline]
    fn current(&mut self) -> Result<&mut Counts, Error> {
        let position = match self.current {
            Some(position) => position,
            None => self.enter(0)?,
        };
        Ok(&mut self.databases[position])
    }

    fn enter(&mut self, index: u32) -> Result<usize, Error> {
        let position = match self.positions.get(&index) {
            Some(position) => *position,
            None => {
                if self.databases.len() == DATABASE_LIMIT {
                    return Err(Error::Databases { limit: DATABASE_LIMIT });
                }
                let position = self.databases.len();
                self.databases.push(Counts { index, declared: None, types: Default::default() });
                self.positions.insert(index, position);
                position
            }
        };
        self.current = Some(position);
        Ok(position)
    }

    /// Puts a key in its place among the biggest; of equals the first ones stay.
    fn rank(&mut self, key: BigKey) {
        let place = self.biggest.partition_point(|other| other.bytes >= key.bytes);
        self.biggest.truncate(BIGGEST - 1);
        self.biggest.insert(place, key);
    }
}

impl Counts {
    fn database(&self) -> Database {
        let types = Type::ALL.into_iter().zip(self.types).filter(|(_, count)| count.keys > 0).collect();
        Database {
            index: self.index,
            keys: self.types.iter().map(|count| count.keys).sum(),
            expiring: self.types.iter().map(|count| count.expiring).sum(),
            bytes: self.types.iter().map(|count| count.bytes).sum(),
            declared_keys: self.declared.map(|(keys, _)| keys),
            declared_expiring: self.declared.map(|(_, expiring)| expiring),
            types,
        }
    }
}

/// The name in a module identifier: nine characters of six bits, above ten bits of version.
fn module_name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).rev().map(|place| char::from(LETTERS[(id >> (10 + 6 * place) & 63) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names() {
        // Goal: names come out as the module registered them. Method: encode by the rule, decode.
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for name in ["ReJSON-RL", "MBbloom--", "AAAAAAAAA", "_________"] {
            let bits = name.bytes().fold(0_u64, |id, letter| id << 6 | letters.iter().position(|known| *known == letter).map_or(0, |at| at as u64));
            assert_eq!(module_name(bits << 10 | 3), name);
        }
    }

    #[test]
    fn the_biggest_keys() {
        // Goal: the sixteen biggest, falling, the first of equals. Method: sizes in a mixed order.
        let mut tally = Tally::default();
        for step in 0..1_000_u64 {
            tally.key(Type::List, false, step * 617 % 1_000).expect("one database");
        }
        tally.key(Type::Set, false, 984).expect("one database");
        let sizes: Vec<u64> = tally.biggest.iter().map(|key| key.bytes).collect();
        assert_eq!(sizes, (984..1_000).rev().collect::<Vec<_>>());
        assert!(tally.biggest.iter().all(|key| key.kind == Type::List));
    }

    #[test]
    fn declared_counts() {
        // Goal: a mismatch anywhere is recorded, and silence is not a match. Method: four small tallies.
        let tally = |declared: Option<u64>, slot: Option<u64>| {
            let mut tally = Tally::default();
            tally.select(3).expect("one database");
            if let Some(keys) = declared {
                tally.declare(keys, 1).expect("one database");
            }
            if let Some(keys) = slot {
                tally.aux(Field::SlotInfo, format!("16383,{keys},1").as_bytes());
            }
            tally.key(Type::String, true, 10).expect("one database");
            tally.key(Type::Hash, false, 10).expect("one database");
            tally
        };
        assert_eq!(tally(None, None).finish(true).counts_match, None);
        assert_eq!(tally(Some(2), None).finish(true).counts_match, Some(true));
        assert_eq!(tally(Some(2), None).finish(false).counts_match, None);
        assert_eq!(tally(Some(3), None).finish(true).counts_match, Some(false));
        assert_eq!(tally(Some(2), Some(2)).finish(true).counts_match, Some(true));
        assert_eq!(tally(Some(2), Some(1)).finish(true).counts_match, Some(false));
        assert_eq!(tally(None, Some(2)).finish(true).slots, Some(Slots { slots: 1, keys: 2, expiring: 1 }));
    }

    #[test]
    fn too_many_databases() {
        // Goal: the number of databases is bounded, the number of visits is not. Method: go round twice.
        let mut tally = Tally::default();
        for index in (0..DATABASE_LIMIT as u32).chain(0..DATABASE_LIMIT as u32) {
            tally.select(index).expect("within the limit");
        }
        assert_eq!(tally.select(u32::MAX), Err(Error::Databases { limit: DATABASE_LIMIT }));
    }

    #[test]
    fn aux_values() {
        // Goal: only short printable values are kept. Method: a few of each.
        let mut tally = Tally::default();
        tally.aux(Field::Ctime, b"1700000000");
        tally.aux(Field::ReplId, &[b'a'; 129]);
        tally.aux(Field::RedisVer, b"7\n0");
        tally.aux(Field::SlotInfo, b"nonsense");
        assert_eq!(tally.aux, Aux { ctime: Some("1700000000".into()), ..Aux::default() });
        assert_eq!(tally.slots, None);
    }
}
