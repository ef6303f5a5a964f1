//! Hash slots of a cluster: which slot a key is in, and whether the slots that the dump's owner has are those of its keys.

use super::Slots;

/// Hash slots of a cluster.
///
/// Source: Redis cluster specification.
pub const SLOT_COUNT: u16 = 16_384;

/// Bits of a word of the bitmap.
const WORD_BITS: usize = 64;

/// Bytes that are taken in one step of the checksum.
const STEP: usize = 8;

/// CRC-16/XMODEM of each byte with as many zero bytes behind it as its row says: polynomial 0x1021, nothing reflected, initial
/// value 0. A static, so that there is one of it.
static CRC16: [[u16; 256]; STEP] = {
    let mut table = [[0; 256]; STEP];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut row = 0;
        while row < STEP {
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
                bit += 1;
            }
            table[row][byte] = crc;
            row += 1;
        }
        byte += 1;
    }
    table
};

/// The slot of a key, from 0 to 16383.
///
/// What stands between the first `{` and the first `}` after it counts alone, unless it is empty: so that callers can put keys
/// into one slot.
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(tag(key).unwrap_or(key)) % SLOT_COUNT
}

fn crc16(bytes: &[u8]) -> u16 {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    let crc = steps.iter().fold(0_u16, |crc, &[a, b, c, d, e, f, g, h]| {
        let at = |row: usize, byte: u8| CRC16[row][usize::from(byte)];
        let [high, low] = crc.to_be_bytes();
        at(7, a ^ high) ^ at(6, b ^ low) ^ at(5, c) ^ at(4, d) ^ at(3, e) ^ at(2, f) ^ at(1, g) ^ at(0, h)
    });
    rest.iter().fold(crc, |crc, byte| crc << 8 ^ CRC16[0][usize::from((crc >> 8) as u8 ^ byte)])
}

fn tag(key: &[u8]) -> Option<&[u8]> {
    let inside = &key[memchr::memchr(b'{', key)? + 1..];
    let tag = &inside[..memchr::memchr(b'}', inside)?];
    (!tag.is_empty()).then_some(tag)
}

/// A set of hash slots.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u64; SLOT_COUNT as usize / WORD_BITS]>);

impl Default for SlotSet {
    fn default() -> Self {
        Self(Box::new([0; SLOT_COUNT as usize / WORD_BITS]))
    }
}

impl std::fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} slots", self.len())
    }
}

impl SlotSet {
    /// The slots of these ranges, each from its first to its last. What is not a slot is left out, and a range that ends before
    /// it begins is empty.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut set = Self::default();
        for slot in ranges.into_iter().flat_map(|(first, last)| first..=last.min(SLOT_COUNT - 1)) {
            set.0[usize::from(slot) / WORD_BITS] |= 1 << (usize::from(slot) % WORD_BITS);
        }
        set
    }

    /// Whether the slot is one of them.
    #[inline]
    pub fn contains(&self, slot: u16) -> bool {
        self.0.get(usize::from(slot) / WORD_BITS).is_some_and(|word| word >> (usize::from(slot) % WORD_BITS) & 1 != 0)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Keys and expiring keys of each slot. The two lie apart, so that counting a key without expiry touches little memory.
#[derive(Debug)]
struct Counts {
    keys: Box<[u64]>,
    expiring: Box<[u64]>,
}

impl Counts {
    fn new() -> Self {
        let zeros = || vec![0; usize::from(SLOT_COUNT)].into();
        Self { keys: zeros(), expiring: zeros() }
    }

    fn of(&self, slot: u16) -> (u64, u64) {
        (self.keys[usize::from(slot)], self.expiring[usize::from(slot)])
    }
}

/// Keys by slot, against the slots of the shard and the numbers that the source declared. Takes half a mebibyte, whatever the
/// dump.
#[derive(Debug)]
pub(super) struct Placement {
    own: SlotSet,
    found: Counts,
    declared: Counts,
    stray: u64,
}

impl Placement {
    pub(super) fn new(own: SlotSet) -> Self {
        Self { own, found: Counts::new(), declared: Counts::new(), stray: 0 }
    }

    /// A key was found.
    #[inline]
    pub(super) fn key(&mut self, key: &[u8], expires: bool) {
        let slot = slot_of(key);
        self.stray += u64::from(!self.own.contains(slot));
        self.found.keys[usize::from(slot)] += 1;
        if expires {
            self.found.expiring[usize::from(slot)] += 1;
        }
    }

    /// The source says how much a slot holds, in one of its databases. What is not a slot has no place here.
    pub(super) fn declare(&mut self, slot: u64, keys: u64, expiring: u64) {
        let Counts { keys: all, expiring: all_expiring } = &mut self.declared;
        if let Some(slot) = usize::try_from(slot).ok().filter(|slot| *slot < all.len()) {
            all[slot] = all[slot].saturating_add(keys);
            all_expiring[slot] = all_expiring[slot].saturating_add(expiring);
        }
    }

    /// Keys outside of the shard's slots.
    pub(super) fn stray_keys(&self) -> u64 {
        self.stray
    }

    /// The slots in which not what was declared was found, each in words.
    pub(super) fn faults(&self) -> impl Iterator<Item = String> {
        let each = (0..SLOT_COUNT).map(|slot| (slot, self.declared.of(slot), self.found.of(slot)));
        each.filter(|(_, declared, found)| declared != found).map(|(slot, declared, found)| words(&format!("slot {slot}"), declared, found))
    }
}

/// A number that differs from what was declared, in words.
pub(super) fn words(place: &str, declared: (u64, u64), found: (u64, u64)) -> String {
    format!("{place}: {} keys and {} expiring were declared, {} and {} found", declared.0, declared.1, found.0, found.1)
}

impl Slots {
    /// The sum over all slots, when it is not what was found.
    pub(super) fn fault(self, found: (u64, u64)) -> Option<String> {
        let declared = (self.keys, self.expiring);
        (declared != found).then(|| words("all slots", declared, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_keys() {
        // Goal: the slots are those of the servers. Method: what `CLUSTER KEYSLOT` of a Redis 7.0 answers, and the vector of
        // the polynomial.
        let table: [(&[u8], u16); 12] = [
            (b"", 0),
            (b"123456789", 0x31c3),
            (b"foo", 12_182),
            (b"bar", 5_061),
            (b"foo{bar}", 5_061),
            (b"{bar}foo{zap}", 5_061),
            (b"{user1000}.following", 3_443),
            (b"user1000", 3_443),
            (b"foo{}{bar}", 8_363),
            (b"foo{{bar}}zap", 4_015),
            (b"foo{bar", 15_278),
            (b"\x00\xff{\x00}", 0),
        ];
        for (key, slot) in table {
            assert_eq!(slot_of(key), slot, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn sets() {
        // Goal: a set holds what its ranges say and nothing else. Method: ranges that touch, overlap, end too late and are empty.
        let set = SlotSet::from_ranges([(0, 0), (63, 65), (64, 70), (16_383, u16::MAX), (9, 8)]);
        assert_eq!(set.len(), 1 + 8 + 1);
        let found: Vec<u16> = (0..=u16::MAX).filter(|slot| set.contains(*slot)).collect();
        assert_eq!(found, [0, 63, 64, 65, 66, 67, 68, 69, 70, 16_383]);
        assert!(SlotSet::default().is_empty() && !set.is_empty());
        assert_eq!(SlotSet::from_ranges([(0, 16_383)]).len(), 16_384);
    }

    #[test]
    fn placement() {
        // Goal: strays are counted, and each slot is held against its own number. Method: a shard of one slot.
        let mut placement = Placement::new(SlotSet::from_ranges([(12_182, 12_182)]));
        placement.declare(12_182, 1, 1);
        placement.declare(12_182, 1, 0);
        placement.declare(u64::MAX, 9, 9);
        placement.key(b"foo", true);
        assert_eq!(placement.faults().collect::<Vec<_>>(), ["slot 12182: 2 keys and 1 expiring were declared, 1 and 1 found"]);
        placement.key(b"x{foo}", false);
        assert_eq!((placement.stray_keys(), placement.faults().count()), (0, 0));
        placement.key(b"bar", false);
        assert_eq!((placement.stray_keys(), placement.faults().count()), (1, 1));
    }
}
