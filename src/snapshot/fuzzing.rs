//! The framing of a payload, for the fuzz targets.

use super::Error;
use super::payload::{Payload, Progress};
use crate::rdb;
use crate::redis::replication::Framing;

/// Takes a payload that comes in `pieces`; gives the dump in it and what the walk found.
///
/// # Errors
///
/// What a snapshot fails with on the same bytes.
pub fn unframe<'a>(framing: &Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<u8>, rdb::Summary), Error> {
    let mut payload = Payload::new(framing, rdb::Options::default());
    let mut dump = Vec::new();
    for piece in pieces {
        let progress = payload.push(piece, &mut |bytes| {
            dump.extend_from_slice(bytes);
            Ok(())
        })?;
        if progress == Progress::Done {
            break;
        }
    }
    payload.finish().map(|summary| (dump, summary))
}
