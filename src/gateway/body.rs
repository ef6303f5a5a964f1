//! Reading bodies within limits of size and time.

use super::answer::Refusal;
use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::time::Duration;

/// What is read and dropped beyond the limit, in bytes, so that a client that writes first and reads later sees the refusal.
const DROPPED_BYTES: usize = 8 * 1024 * 1024;

/// How long a body that is refused is read.
const DROPPED_TIME: Duration = Duration::from_secs(2);

/// How long a body may take to arrive.
const READ_TIME: Duration = Duration::from_secs(60);

/// Reads a body of at most `limit` bytes.
///
/// `wants_continue` tells that the client waits for a word before it sends the body: one that is too long by its own
/// account is then not read at all.
///
/// # Errors
///
/// 413 when it is longer; 400 when it breaks off; 408 when it takes too long.
pub(super) async fn read(body: Body, limit: usize, wants_continue: bool) -> Result<Bytes, Refusal> {
    tokio::time::timeout(READ_TIME, read_all(body, limit, wants_continue)).await.map_err(|_| Refusal::slow_body())?
}

async fn read_all(mut body: Body, limit: usize, wants_continue: bool) -> Result<Bytes, Refusal> {
    let declared_bytes = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared_bytes > limit {
        if !wants_continue {
            drop_rest(&mut body, limit).await;
        }
        return Err(Refusal::too_long(limit));
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::malformed("the body breaks off"))?.into_data() else { continue };
        if read.len() + data.len() > limit {
            drop(read);
            drop_rest(&mut body, limit).await;
            return Err(Refusal::too_long(limit));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

/// Reads on without keeping anything. Best effort: where the client sends more than that, it may see a broken connection in
/// place of the refusal.
async fn drop_rest(body: &mut Body, limit: usize) {
    let read = async {
        let mut dropped_bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            dropped_bytes += frame.data_ref().map_or(0, Bytes::len);
            if dropped_bytes > limit + DROPPED_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DROPPED_TIME, read).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};
    use std::convert::Infallible;

    /// A body of pieces of 1,000 bytes whose length is not declared.
    fn pieces(count: usize) -> Body {
        Body::from_stream(stream::iter((0..count).map(|_| Ok::<_, Infallible>(Bytes::from(vec![b'x'; 1000])))))
    }

    #[tokio::test]
    async fn bodies_within_and_beyond_the_limit() {
        assert_eq!(read(Body::empty(), 10, false).await.unwrap().len(), 0);
        assert_eq!(read(Body::from("0123456789"), 10, false).await.unwrap().len(), 10);
        assert!(read(Body::from("0123456789a"), 10, false).await.is_err());
        assert!(read(Body::from("0123456789a"), 10, true).await.is_err());
        assert_eq!(read(pieces(3), 3000, false).await.unwrap().len(), 3000);
        assert!(read(pieces(3), 2999, false).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_long_is_not_read_for_ever() {
        // Method: a body that sends much and never ends, and one that sends a little and then nothing; the clock jumps.
        let endless = Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from(vec![b'x'; 1 << 16]))));
        assert!(read(endless, 10, false).await.is_err());
        let hanging = Body::from_stream(stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"0123456789a"))]).chain(stream::pending()));
        assert!(read(hanging, 10, false).await.is_err());
        let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(crate::gateway::answer::refusal(&read(silent, 10, false).await.unwrap_err()).status(), 408);
    }
}
