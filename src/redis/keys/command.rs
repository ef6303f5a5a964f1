//! The commands that write keys, as bytes.

use crate::rdb::{Entry, FOOTER_BYTES, FUNCTION_MARK, Footer};

/// Appends a command of whole arguments.
pub(super) fn append(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    head(out, arguments.len());
    for argument in arguments {
        bulk(out, argument);
    }
}

/// Appends `RESTORE` of a value that is at hand; the value is as in a dump, and `version` the dump's.
pub(super) fn restore(out: &mut Vec<u8>, entry: &Entry, value: &[u8], version: u16, is_replacing: bool) {
    restore_head(out, entry, value.len() as u64, is_replacing);
    let start = out.len();
    out.push(entry.type_byte);
    out.extend_from_slice(value);
    let mut footer = Footer::new();
    footer.cover(&out[start..]);
    out.extend_from_slice(&footer.finish(version));
    restore_tail(out, entry, is_replacing);
}

/// Appends what stands before the payload of `RESTORE`, for a value of so many bytes. The type byte is the first of the payload.
pub(super) fn restore_head(out: &mut Vec<u8>, entry: &Entry, value_bytes: u64, is_replacing: bool) {
    let options = usize::from(is_replacing) + usize::from(entry.expires_at.is_some()) + 2 * usize::from(used(entry).is_some());
    head(out, 4 + options);
    bulk(out, b"RESTORE");
    bulk(out, &entry.name);
    number(out, entry.expires_at.map_or(0, |at| u64::try_from(at).unwrap_or(0)));
    out.push(b'$');
    decimal(out, payload_bytes(value_bytes));
    out.extend_from_slice(b"\r\n");
}

/// Appends what stands behind the payload of `RESTORE`.
pub(super) fn restore_tail(out: &mut Vec<u8>, entry: &Entry, is_replacing: bool) {
    out.extend_from_slice(b"\r\n");
    if is_replacing {
        bulk(out, b"REPLACE");
    }
    if entry.expires_at.is_some() {
        bulk(out, b"ABSTTL");
    }
    if let Some((word, value)) = used(entry) {
        bulk(out, word);
        number(out, value);
    }
}

/// Length of the payload of `RESTORE` for a value of so many bytes.
pub fn payload_bytes(value_bytes: u64) -> u64 {
    value_bytes + 1 + FOOTER_BYTES as u64
}

/// Appends `FUNCTION RESTORE` of a library; `source` is as in a dump, and `version` the dump's.
pub(super) fn library(out: &mut Vec<u8>, source: &[u8], version: u16, is_replacing: bool) {
    let mut payload = Vec::with_capacity(1 + source.len() + FOOTER_BYTES);
    payload.push(FUNCTION_MARK);
    payload.extend_from_slice(source);
    let mut footer = Footer::new();
    footer.cover(&payload);
    payload.extend_from_slice(&footer.finish(version));
    let policy: &[u8] = if is_replacing { b"REPLACE" } else { b"APPEND" };
    append(out, &[b"FUNCTION", b"RESTORE", &payload, policy]);
}

/// How long a key was not used, or how often it was; a server takes one of the two.
fn used(entry: &Entry) -> Option<(&'static [u8], u64)> {
    let idle = entry.idle_seconds.filter(|seconds| i64::try_from(*seconds).is_ok()).map(|seconds| (&b"IDLETIME"[..], seconds));
    idle.or_else(|| entry.frequency.map(|frequency| (&b"FREQ"[..], u64::from(frequency))))
}

fn head(out: &mut Vec<u8>, arguments: usize) {
    out.push(b'*');
    decimal(out, arguments as u64);
    out.extend_from_slice(b"\r\n");
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'$');
    decimal(out, bytes.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn number(out: &mut Vec<u8>, number: u64) {
    let mut digits = Vec::with_capacity(DIGITS);
    decimal(&mut digits, number);
    bulk(out, &digits);
}

/// Most digits of a number of 64 bits.
const DIGITS: usize = 20;

fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; DIGITS];
    let mut first = DIGITS;
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::Type;

    fn entry() -> Entry {
        Entry { database: 0, name: b"k".to_vec(), kind: Type::String, type_byte: 0, expires_at: None, idle_seconds: None, frequency: None }
    }

    #[test]
    fn a_restore_is_what_a_server_reads() {
        // Goal: the payload is that of DUMP. Method: the one that Redis 7.0 gives for `SET k 10` (version 10, an integer of one byte).
        let mut out = Vec::new();
        restore(&mut out, &entry(), &[0xc0, 10], 10, false);
        let payload = [0x00, 0xc0, 0x0a, 0x0a, 0x00];
        assert!(out.starts_with(b"*4\r\n$7\r\nRESTORE\r\n$1\r\nk\r\n$1\r\n0\r\n$13\r\n"), "{}", out.escape_ascii());
        assert_eq!(out[out.len() - 15..][..5], payload);
        let mut footer = Footer::new();
        footer.cover(&payload[..3]);
        assert_eq!(out[out.len() - 12..out.len() - 2], footer.finish(10));
    }

    #[test]
    fn options_are_counted() {
        let full = Entry { expires_at: Some(1_900_000_000_123), idle_seconds: Some(7), frequency: Some(3), ..entry() };
        let often = Entry { frequency: Some(3), ..entry() };
        for (entry, is_replacing, arguments, tail) in [
            (&full, true, 8, "\r\n$7\r\nREPLACE\r\n$6\r\nABSTTL\r\n$8\r\nIDLETIME\r\n$1\r\n7\r\n"),
            (&full, false, 7, "\r\n$6\r\nABSTTL\r\n$8\r\nIDLETIME\r\n$1\r\n7\r\n"),
            (&often, false, 6, "\r\n$4\r\nFREQ\r\n$1\r\n3\r\n"),
            (&entry(), true, 5, "\r\n$7\r\nREPLACE\r\n"),
        ] {
            let mut out = Vec::new();
            restore(&mut out, entry, b"\x01x", 11, is_replacing);
            assert!(out.starts_with(format!("*{arguments}\r\n").as_bytes()) && out.ends_with(tail.as_bytes()), "{}", out.escape_ascii());
        }
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }
}
