//! Whether an LZF block unfolds to exactly what it declares.
//!
//! A block is a row of tokens: a control byte below 32 and that many literal bytes plus one, or a reference to
//! earlier output. To know how much comes out, and that no reference reaches before the start, lengths and distances
//! are enough; the output itself is never needed, so there is no buffer for it.

use super::What;

/// Most output bytes that one stored byte can stand for: a reference of three bytes copies at most 264.
const RATIO_LIMIT: u64 = 264;

/// One message for every fault, so that it does not depend on where the pieces were cut.
const CORRUPT: What = "a compressed string that does not unfold to its declared size";

/// By control byte: how far to the next one (low half), and the output before a long reference's extra (high half).
const TOKENS: [u16; 256] = {
    let mut tokens = [0; 256];
    let mut control = 0;
    while control < 256 {
        let (stored, output) = match control >> 5 {
            0 => (control + 2, control + 1),
            7 => (3, 9),
            short => (2, short + 2),
        };
        tokens[control] = (output << 8 | stored) as u16;
        control += 1;
    }
    tokens
};

/// A walk along one block, in pieces of any size.
#[derive(Debug)]
pub(super) struct Lzf {
    /// Stored bytes still to come.
    left: u64,
    declared: u64,
    produced: u64,
    /// Literal bytes of the current token still to come.
    literals: usize,
    /// A reference of which not all bytes have come.
    partial: [u8; 3],
    partial_len: usize,
}

impl Lzf {
    /// Begins a block of `stored` bytes that must unfold to `declared`.
    pub(super) fn new(stored: u64, declared: u64) -> Result<Self, What> {
        if stored == 0 || declared == 0 {
            return Err("a compressed string without content");
        }
        if declared > stored.saturating_mul(RATIO_LIMIT) {
            return Err("a compressed string that declares more than it can hold");
        }
        Ok(Self { left: stored, declared, produced: 0, literals: 0, partial: [0; 3], partial_len: 0 })
    }

    /// True when the whole block has been seen.
    pub(super) fn done(&self) -> bool {
        self.left == 0
    }

    /// Takes what belongs to the block from the front of `input`; returns how many bytes that was.
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<usize, What> {
        let take = usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()));
        let input = &input[..take];
        let mut at = 0;
        while at < take {
            if self.literals > 0 {
                let run = self.literals.min(take - at);
                self.literals -= run;
                at += run;
            } else {
                if self.partial_len == 0 {
                    at = self.leap(input, at)?;
                }
                if at < take {
                    self.push(input[at])?;
                    at += 1;
                } else {
                    self.literals = at - take;
                }
            }
        }
        self.left -= take as u64;
        let cut_short = self.done() && (self.literals > 0 || self.partial_len > 0 || self.produced != self.declared);
        if cut_short || self.produced > self.declared {
            return Err(CORRUPT);
        }
        Ok(take)
    }

    /// Walks whole tokens while three bytes are at hand, without a branch for their kinds: these are close to random,
    /// and a wrong guess costs more than the work. The result may lie beyond `input`, by literals that are to come.
    fn leap(&mut self, input: &[u8], mut at: usize) -> Result<usize, What> {
        let mut produced = self.produced;
        let mut corrupt = false;
        while let Some(&[control, second, third]) = input.get(at..).and_then(|rest| rest.first_chunk()) {
            let token = TOKENS[usize::from(control)];
            let long = control >= 0xe0;
            let low = if long { third } else { second };
            let distance = (u64::from(control & 31) << 8 | u64::from(low)) + 1;
            corrupt |= (control >= 32) & (distance > produced);
            produced += u64::from(token >> 8) + if long { u64::from(second) } else { 0 };
            at += usize::from(token & 0xff);
        }
        self.produced = produced;
        if corrupt { Err(CORRUPT) } else { Ok(at) }
    }

    /// Takes one byte of a token: the slow way, near the edges of a piece.
    fn push(&mut self, byte: u8) -> Result<(), What> {
        self.partial[self.partial_len] = byte;
        self.partial_len += 1;
        let [control, second, third] = self.partial;
        let token = TOKENS[usize::from(control)];
        if control < 32 {
            self.literals = usize::from(control) + 1;
        } else if self.partial_len < usize::from(token & 0xff) {
            return Ok(());
        } else {
            let (low, extra) = if control >= 0xe0 { (third, second) } else { (second, 0) };
            let distance = (u64::from(control & 31) << 8 | u64::from(low)) + 1;
            if distance > self.produced {
                return Err(CORRUPT);
            }
            self.produced += u64::from(extra);
        }
        self.produced += u64::from(token >> 8);
        self.partial_len = 0;
        Ok(())
    }
}

/// Unfolds a block that is small enough to be held whole; the caller bounds both sizes.
pub(super) fn unfold(block: &[u8], declared: usize) -> Result<Vec<u8>, What> {
    let mut output = Vec::with_capacity(declared);
    let mut rest = block.iter().copied();
    while let Some(control) = rest.next() {
        let mut next = || rest.next().ok_or(CORRUPT);
        if control < 32 {
            for _ in 0..=control {
                output.push(next()?);
            }
        } else {
            let extra = if control >= 0xe0 { next()? } else { 0 };
            let distance = (usize::from(control & 31) << 8 | usize::from(next()?)) + 1;
            let length = usize::from(control >> 5) + usize::from(extra) + 2;
            // A reference may reach into what it writes; each run doubles what can be copied at once.
            let from = output.len().checked_sub(distance).ok_or(CORRUPT)?;
            let mut left = length;
            while left > 0 {
                let run = left.min(output.len() - from);
                output.extend_from_within(from..from + run);
                left -= run;
            }
        }
        if output.len() > declared {
            return Err(CORRUPT);
        }
    }
    if output.len() == declared { Ok(output) } else { Err(CORRUPT) }
}

/// Unfolds the beginning of a block into `output`, as far as either goes; tells how much that is. A fault ends it, too.
pub(super) fn beginning(block: &[u8], output: &mut [u8]) -> usize {
    let (mut at, mut length) = (0, 0);
    while length < output.len()
        && let Some(&control) = block.get(at)
    {
        if control < 32 {
            let literals = block.get(at + 1..).unwrap_or_default();
            let run = (usize::from(control) + 1).min(literals.len()).min(output.len() - length);
            output[length..length + run].copy_from_slice(&literals[..run]);
            length += run;
            at += usize::from(control) + 2;
            continue;
        }
        let (extra, low, took) = if control >> 5 == 7 { (block.get(at + 1), block.get(at + 2), 3) } else { (Some(&0), block.get(at + 1), 2) };
        let (Some(extra), Some(low)) = (extra, low) else { break };
        let distance = (usize::from(control & 31) << 8 | usize::from(*low)) + 1;
        let Some(from) = length.checked_sub(distance) else { break };
        let copied = (usize::from(control >> 5) + 2 + usize::from(*extra)).min(output.len() - length);
        // It may reach into what it copies.
        for index in 0..copied {
            output[length + index] = output[from + index];
        }
        length += copied;
        at += took;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks `block` in pieces of `size`.
    fn walk(block: &[u8], declared: u64, size: usize) -> Result<(), What> {
        let mut lzf = Lzf::new(block.len() as u64, declared)?;
        for piece in block.chunks(size) {
            assert_eq!(lzf.feed(piece)?, piece.len());
        }
        assert!(lzf.done());
        assert_eq!(lzf.feed(b"more"), Ok(0));
        Ok(())
    }

    #[test]
    fn blocks() {
        // Goal: good blocks pass and bad ones do not, wherever they are cut. Method: a table, all piece sizes, and
        // the unfolding decoder as a second opinion.
        let table: &[(&[u8], u64, bool)] = &[
            (&[0, b'a'], 1, true),
            (&[2, b'a', b'b', b'c'], 3, true),
            (&[0, b'a', 0x20, 0], 4, true),
            (&[0, b'a', 0xe0, 0, 0], 10, true),
            (&[0, b'a', 0xe0, 255, 0, 1, b'b', b'c'], 267, true),
            (&[0, b'a', 0x20, 0, 0xe0, 3, 2, 0, b'z'], 17, true),
            (&[0, b'a', 0x20, 1], 4, false),
            (&[0, b'a', 0x21, 0], 4, false),
            (&[0x20, 0], 3, false),
            (&[0, b'a', 0x20], 4, false),
            (&[0, b'a', 0xe0, 0], 10, false),
            (&[3, b'a', b'b'], 4, false),
            (&[0, b'a', 0x20, 0], 3, false),
            (&[0, b'a', 0x20, 0], 5, false),
        ];
        for (block, declared, good) in table {
            for size in 1..=block.len() {
                assert_eq!(walk(block, *declared, size).is_ok(), *good, "{block:?} in pieces of {size}");
            }
            assert_eq!(unfold(block, *declared as usize).is_ok(), *good, "{block:?}");
        }
        assert_eq!(unfold(&[0, b'a', 0x20, 0, 0, b'b'], 5), Ok(b"aaaab".to_vec()));
    }

    #[test]
    fn random_blocks_agree_with_the_decoder() {
        // Goal: the walk and the decoder agree on any bytes. Method: small pseudo-random blocks, a declared size
        // that is right for many of them.
        let mut seed = 7_u64;
        let mut good = 0;
        for _ in 0..20_000 {
            let block: Vec<u8> = (0..6)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let byte = (seed >> 40) as u8;
                    if byte & 1 == 0 { byte >> 6 } else { byte }
                })
                .collect();
            for declared in [4, 5, 6, 9] {
                let expected = unfold(&block, declared).is_ok();
                good += u32::from(expected);
                for size in [1, 2, 3, 6] {
                    assert_eq!(walk(&block, declared as u64, size).is_ok(), expected, "{block:?} {declared}");
                }
            }
        }
        assert!(good > 100, "{good} good blocks");
    }

    #[test]
    fn bombs() {
        // Goal: sizes that cannot be true are refused from the head alone. Method: a table.
        assert!(Lzf::new(0, 1).is_err());
        assert!(Lzf::new(1, 0).is_err());
        assert!(Lzf::new(10, 2_641).is_err());
        assert!(Lzf::new(10, 2_640).is_ok());
        assert!(Lzf::new(u64::MAX, u64::MAX).is_ok());
    }
}
