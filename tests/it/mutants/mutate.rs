//! Changes that hurt: each knows what it changes.

use super::layout::{Kind, Layout};
use crate::support::rdb_bytes::crc64;
use rand::Rng;
use rand::rngs::StdRng;

/// Lengths at the ends of their forms, and far beyond.
const NUMBERS: [u64; 14] = [0, 1, 2, 63, 64, 127, 16_383, 16_384, 65_535, 1 << 24, u32::MAX as u64, 1 << 32, i64::MAX as u64, u64::MAX];

/// Changes of one mutant, at most.
const CHANGES: usize = 3;

/// A dump changed in one way or a few, with a right checksum, and the name of the last way.
pub fn mutant(random: &mut StdRng, dump: &[u8], layout: &Layout) -> (Vec<u8>, &'static str) {
    loop {
        let changes = random.random_range(1..=CHANGES);
        // Later places first, so that what is known of the earlier ones stays true.
        let mut places: Vec<usize> = (0..changes).map(|_| random.random_range(0..layout.fields.len())).collect();
        places.sort_unstable();
        places.dedup();
        places.reverse();
        let mut body = dump[..=layout.end].to_vec();
        let mut way = "records";
        if random.random_range(0..6) == 0 {
            records(random, &mut body, layout);
        } else {
            for place in places {
                way = change(random, &mut body, layout, place);
            }
        }
        if body != dump[..=layout.end] {
            return (sealed(&body), way);
        }
    }
}

/// The dump with its checksum behind it.
pub fn sealed(body: &[u8]) -> Vec<u8> {
    let mut dump = body.to_vec();
    dump.extend_from_slice(&crc64(body).to_le_bytes());
    dump
}

/// Doubles, drops or swaps records, or ends the dump early.
fn records(random: &mut StdRng, body: &mut Vec<u8>, layout: &Layout) {
    let one = layout.records[random.random_range(0..layout.records.len())].clone();
    let other = layout.records[random.random_range(0..layout.records.len())].clone();
    match random.random_range(0..4) {
        0 => {
            let copy = body[one.clone()].to_vec();
            body.splice(other.start..other.start, copy);
        }
        1 => drop(body.drain(one)),
        2 if one.end <= other.start => {
            let (first, between, second) = (body[one.clone()].to_vec(), body[one.end..other.start].to_vec(), body[other.clone()].to_vec());
            body.splice(one.start..other.end, [second, between, first].concat());
        }
        _ => {
            body.truncate(one.start);
            body.push(0xff);
        }
    }
}

fn change(random: &mut StdRng, body: &mut Vec<u8>, layout: &Layout, place: usize) -> &'static str {
    let field = &layout.fields[place];
    let at = field.at.clone();
    match field.kind {
        Kind::First => {
            body[at.start] = if random.random() { random.random_range(0..34) } else { random.random_range(0xf0..=0xff) };
            "first byte"
        }
        Kind::Count | Kind::Length => {
            let number = match random.random_range(0..4) {
                0 => NUMBERS[random.random_range(0..NUMBERS.len())],
                1 => u64::from(body[at.start] & 63).wrapping_add(1),
                2 => u64::from(body[at.start] & 63).wrapping_sub(1),
                _ => random.random_range(0..300),
            };
            let written = length(random, number);
            body.splice(at, written);
            if field.kind == Kind::Count { "count" } else { "length" }
        }
        Kind::Text => {
            if random.random() {
                flip(random, &mut body[at]);
            } else {
                // As much more or less as the length before it does not say.
                let inserted: Vec<u8> = (0..random.random_range(0..4)).map(|_| random.random()).collect();
                let cut = at.start..(at.start + random.random_range(0..4)).min(at.end);
                body.splice(cut, inserted);
            }
            "text"
        }
        Kind::Packed => {
            packed(random, &mut body[at]);
            "packed"
        }
        Kind::Lzf => {
            flip(random, &mut body[at]);
            "lzf"
        }
        Kind::Raw => {
            flip(random, &mut body[at]);
            "raw"
        }
        Kind::Expiry => {
            let instant: u64 = match random.random_range(0..4) {
                0 => 0,
                1 => u64::MAX,
                2 => i64::MAX as u64,
                _ => random.random(),
            };
            let width = at.len();
            body[at].copy_from_slice(&instant.to_le_bytes()[..width]);
            "expiry"
        }
    }
}

/// Spoils a packed collection: the sizes and counts at its head, the head of an entry, its end, or any bit.
fn packed(random: &mut StdRng, bytes: &mut [u8]) {
    let head = bytes.len().min(11);
    match random.random_range(0..5) {
        0 => flip(random, &mut bytes[..head]),
        1 if bytes.len() >= 4 => {
            let size = NUMBERS[random.random_range(0..NUMBERS.len())] as u32;
            bytes[..4].copy_from_slice(&size.to_le_bytes());
        }
        2 => {
            if let Some(last) = bytes.last_mut() {
                *last = random.random();
            }
        }
        3 => {
            let at = random.random_range(0..bytes.len());
            bytes[at] = [0, 0x3f, 0x7f, 0x80, 0xbf, 0xc0, 0xe0, 0xf0, 0xf1, 0xf4, 0xfe, 0xff][random.random_range(0..12)];
        }
        _ => flip(random, bytes),
    }
}

fn flip(random: &mut StdRng, bytes: &mut [u8]) {
    let at = random.random_range(0..bytes.len());
    bytes[at] ^= 1 << random.random_range(0..8);
}

/// A number in one of the forms that can hold it, rarely in one that no server writes.
fn length(random: &mut StdRng, number: u64) -> Vec<u8> {
    let mut forms: Vec<Vec<u8>> = vec![[&[0x81], &number.to_be_bytes()[..]].concat()];
    if let Ok(number) = u32::try_from(number) {
        forms.push([&[0x80], &number.to_be_bytes()[..]].concat());
    }
    if number < 1 << 14 {
        forms.push(vec![0x40 | (number >> 8) as u8, number as u8]);
    }
    if number < 64 {
        forms.push(vec![number as u8]);
    }
    if random.random_range(0..20) == 0 {
        return vec![random.random_range(0x82..=0xff)];
    }
    // The shortest is the one that servers write.
    if random.random() { forms.remove(forms.len() - 1) } else { forms.remove(random.random_range(0..forms.len())) }
}
