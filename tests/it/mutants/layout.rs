//! Where the fields of a sound dump are. It reads dumps that servers wrote, for the mutants alone, and shares nothing with the
//! walk.

use std::ops::Range;

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first byte of a record.
    First,
    /// A count of what follows.
    Count,
    /// A length, or another number in the form of one.
    Length,
    /// Bytes of a string.
    Text,
    /// Bytes of a packed collection.
    Packed,
    /// The compressed bytes of a string.
    Lzf,
    /// Numbers of a fixed width.
    Raw,
    /// When a key expires.
    Expiry,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub kind: Kind,
    pub at: Range<usize>,
}

/// The fields of a dump, and its records: a prefix and its key are one.
#[derive(Debug)]
pub struct Layout {
    pub fields: Vec<Field>,
    pub records: Vec<Range<usize>>,
    /// Where the end mark is.
    pub end: usize,
}

struct Scan<'a> {
    dump: &'a [u8],
    at: usize,
    fields: Vec<Field>,
}

impl Layout {
    /// `None` for a dump with something that is not known here.
    pub fn of(dump: &[u8]) -> Option<Self> {
        let mut scan = Scan { dump, at: 9, fields: Vec::new() };
        let mut records = Vec::new();
        let valkey = dump.starts_with(b"VALKEY");
        let mut begun = scan.at;
        loop {
            let first = *dump.get(scan.at)?;
            if first == 0xff {
                return Some(Self { end: scan.at, fields: scan.fields, records });
            }
            scan.field(Kind::First, 1)?;
            let prefix = match first {
                0xfd => scan.field(Kind::Expiry, 4).map(|()| true)?,
                0xfc => scan.field(Kind::Expiry, 8).map(|()| true)?,
                0xf9 => scan.field(Kind::Raw, 1).map(|()| true)?,
                0xf8 => scan.length(Kind::Length).map(|_| true)?,
                _ => scan.record(first, valkey).map(|()| false)?,
            };
            if !prefix {
                records.push(begun..scan.at);
                begun = scan.at;
            }
        }
    }
}

impl Scan<'_> {
    fn field(&mut self, kind: Kind, bytes: usize) -> Option<()> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.dump.len())?;
        if bytes > 0 {
            self.fields.push(Field { kind, at: self.at..end });
        }
        self.at = end;
        Some(())
    }

    /// Reads a length; `Err` is the number of a special form.
    fn number(&mut self, kind: Kind) -> Option<Result<u64, u8>> {
        let first = *self.dump.get(self.at)?;
        let big =
            |scan: &Self, bytes: usize| Some(scan.dump.get(scan.at + 1..scan.at + 1 + bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        let (number, bytes) = match (first >> 6, first) {
            (0, _) => (Ok(u64::from(first)), 1),
            (1, _) => (Ok(u64::from(first & 63) << 8 | big(self, 1)?), 2),
            (_, 0x80) => (Ok(big(self, 4)?), 5),
            (_, 0x81) => (Ok(big(self, 8)?), 9),
            (3, _) => (Err(first & 63), 1),
            _ => return None,
        };
        self.field(kind, bytes)?;
        Some(number)
    }

    fn length(&mut self, kind: Kind) -> Option<u64> {
        self.number(kind)?.ok()
    }

    fn text(&mut self, kind: Kind) -> Option<()> {
        match self.number(Kind::Length)? {
            Ok(bytes) => self.field(kind, usize::try_from(bytes).ok()?),
            Err(form @ 0..=2) => self.field(Kind::Raw, 1 << form),
            Err(3) => {
                let bytes = self.length(Kind::Length)?;
                self.length(Kind::Length)?;
                self.field(Kind::Lzf, usize::try_from(bytes).ok()?)
            }
            Err(_) => None,
        }
    }

    fn each(&mut self, mut row: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let count = self.length(Kind::Count)?;
        (0..count).try_for_each(|_| row(self))
    }

    fn lengths(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.length(Kind::Length).map(drop))
    }

    fn record(&mut self, first: u8, valkey: bool) -> Option<()> {
        match first {
            0xfe => return self.lengths(1),
            0xfb => return self.lengths(2),
            0xfa => return self.text(Kind::Text).and_then(|()| self.text(Kind::Text)),
            0xf5 => return self.text(Kind::Text),
            0xf4 => return self.lengths(3),
            0xf0.. => return None,
            _ => {}
        }
        self.text(Kind::Text)?;
        let packed = |scan: &mut Self| scan.text(Kind::Packed);
        match first {
            0 => self.text(Kind::Text),
            1 | 2 => self.each(|scan| scan.text(Kind::Text)),
            4 => self.each(|scan| scan.text(Kind::Text).and_then(|()| scan.text(Kind::Text))),
            5 => self.each(|scan| scan.text(Kind::Text).and_then(|()| scan.field(Kind::Raw, 8))),
            9..=13 | 16 | 17 | 20 => packed(self),
            14 => self.each(packed),
            18 => self.each(|scan| match scan.length(Kind::Length)? {
                1 => scan.text(Kind::Text),
                _ => scan.text(Kind::Packed),
            }),
            15 | 19 | 21 => self.stream(first),
            22 if valkey => self.each(|scan| {
                scan.text(Kind::Text)?;
                scan.text(Kind::Text)?;
                scan.field(Kind::Expiry, 8)
            }),
            24 => {
                self.field(Kind::Expiry, 8)?;
                self.each(|scan| {
                    scan.length(Kind::Length)?;
                    scan.text(Kind::Text)?;
                    scan.text(Kind::Text)
                })
            }
            25 => self.field(Kind::Expiry, 8).and_then(|()| packed(self)),
            _ => None,
        }
    }

    fn stream(&mut self, kind: u8) -> Option<()> {
        self.each(|scan| scan.text(Kind::Raw).and_then(|()| scan.text(Kind::Packed)))?;
        self.lengths(if kind == 15 { 3 } else { 8 })?;
        self.each(|scan| {
            scan.text(Kind::Text)?;
            scan.lengths(if kind == 15 { 2 } else { 3 })?;
            scan.each(|scan| scan.field(Kind::Raw, 24).and_then(|()| scan.length(Kind::Length).map(drop)))?;
            scan.each(|scan| {
                scan.text(Kind::Text)?;
                scan.field(Kind::Raw, if kind == 21 { 16 } else { 8 })?;
                scan.each(|scan| scan.field(Kind::Raw, 16))
            })
        })
    }
}
