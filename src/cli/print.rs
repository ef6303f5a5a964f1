//! Where words go: answers to standard output, everything else to standard error.

use super::error::Error;
use super::json;
use serde_json::Value;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// Prints an answer, with a line feed at its end.
///
/// A reader that has gone away, such as `head`, is no error.
///
/// # Errors
///
/// When standard output cannot be written for another reason, such as a full disk.
pub(super) fn answer(text: &str) -> Result<(), Error> {
    let mut line = text.to_owned();
    line.push('\n');
    bytes(line.as_bytes())
}

/// Prints an answer as JSON, indented, keys in order.
///
/// # Errors
///
/// As [`answer`].
pub(super) fn value(value: &Value) -> Result<(), Error> {
    answer(&json::text(value))
}

/// Writes bytes to standard output; see [`answer`].
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(fault) if fault.kind() != ErrorKind::BrokenPipe => Err(Error::failed(format_args!("cannot write to standard output: {fault}"))),
        _ => Ok(()),
    }
}

/// Tells the user something besides the answer. Best effort: with standard error closed there is nobody to tell.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether answers may be coloured: standard output is a terminal that can, and the user did not say no.
pub(super) fn may_colour() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
