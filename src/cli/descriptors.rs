//! `redkeep descriptors`: the whole API as an encoded descriptor set.

use super::error::{Error, Exit};
use super::print;
use crate::pb;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;

/// Writes the descriptors to `file`, or to standard output when that is no terminal.
pub(super) fn write(file: Option<&Path>) -> Result<(), Error> {
    if let Some(file) = file {
        return fs::write(file, pb::DESCRIPTORS).map_err(|fault| Error::failed(format_args!("cannot write {}: {fault}", file.display())));
    }
    if io::stdout().is_terminal() {
        return Err(Error::new(Exit::Usage, "the descriptors are binary and do not go to a terminal").with_hint("redkeep descriptors > redkeep.binpb"));
    }
    print::bytes(pb::DESCRIPTORS)
}
