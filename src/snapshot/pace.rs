//! How fast all snapshots of the process together may read: a bucket of bytes that fills at a steady rate.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What may be read at once after a rest, as a time at the rate.
const BURST: Duration = Duration::from_millis(100);

/// Least bytes that are read at once, however low the rate.
const LEAST_BYTES: usize = 4 * 1024;

/// The rate, and what is left of it. Shared by all snapshots; a socket that waits for it is paid by its source, whose save
/// lives as much longer.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Bytes that may be read; negative when they were read already.
    left: f64,
    at: Instant,
}

impl Pace {
    /// A rate in bytes a second, one at least.
    pub fn new(bytes_per_second: u64) -> Self {
        let bytes_per_second = bytes_per_second.max(1) as f64;
        Self { bytes_per_second, bucket: Mutex::new(Bucket { left: bytes_per_second * BURST.as_secs_f64(), at: Instant::now() }) }
    }

    /// Most bytes to be read at once, so that one snapshot does not use up the seconds of all others.
    pub(super) fn piece_bytes(&self, most: usize) -> usize {
        ((self.bytes_per_second * BURST.as_secs_f64()) as usize).clamp(LEAST_BYTES, most)
    }

    /// Counts bytes that were read, and waits until they are within the rate.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the bytes stay counted.
    pub async fn spend(&self, bytes: usize) {
        let wait = {
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let filled = (now - bucket.at).as_secs_f64() * self.bytes_per_second;
            bucket.left = (bucket.left + filled).min(self.bytes_per_second * BURST.as_secs_f64()) - bytes as f64;
            bucket.at = now;
            -bucket.left / self.bytes_per_second
        };
        if wait > 0.0 {
            sleep(Duration::from_secs_f64(wait)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn all_together_keep_to_the_rate() {
        let pace = Arc::new(Pace::new(1_000_000));
        let started = Instant::now();
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let pace = Arc::clone(&pace);
                tokio::spawn(async move {
                    for _ in 0..50 {
                        pace.spend(50_000).await;
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap();
        }
        // Ten million bytes, of which a tenth of a second's were there at the begin.
        let seconds = started.elapsed().as_secs_f64();
        assert!((9.8..10.1).contains(&seconds), "{seconds}");
        // A rest gives a burst, and no more than that.
        sleep(Duration::from_secs(60)).await;
        let started = Instant::now();
        pace.spend(100_000).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        pace.spend(500_000).await;
        assert!((0.49..0.51).contains(&started.elapsed().as_secs_f64()));
    }

    #[test]
    fn pieces_fit_the_rate() {
        assert_eq!(Pace::new(1).piece_bytes(1 << 20), LEAST_BYTES);
        assert_eq!(Pace::new(1_000_000).piece_bytes(1 << 20), 100_000);
        assert_eq!(Pace::new(1 << 40).piece_bytes(1 << 20), 1 << 20);
    }
}
