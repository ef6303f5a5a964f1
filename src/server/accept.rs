//! Who may be connected: the accept loop of a port, and its bounded set of connections.
//!
//! Connections are many and calls are few, so who only holds a connection must not keep others out: when places become
//! scarce, those that never made a call leave first, then those that have been idle longest.

use super::connection::{self, Port};
use super::traffic::Traffic;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections that the system holds for us until they are accepted.
const BACKLOG: u32 = 1024;

/// How long calls under way may take at a graceful stop.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a failed accept, when the process may be out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time after which another connection is asked to leave for one that waits.
const PATIENCE: Duration = Duration::from_millis(100);

/// One place of so many is kept free for those who come.
const FREE_PART: usize = 16;

/// Descriptors that are left for the store, for artifacts, for sources and for the port of health.
const OWN_DESCRIPTORS: u64 = 512;

/// Fewest connections, however few descriptors there are.
const FEWEST_CONNECTIONS: usize = 64;

/// Listens on an address. Connections are probed by TCP when they are silent for long.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Connections inherit it from the socket that accepts them.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Takes as many descriptors as the system grants, and tells how many connections they allow, up to those wanted.
pub(super) fn affordable(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Best effort: what was granted before is enough for fewer connections.
    let descriptors = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // No limit at all is told as none.
    let most = descriptors.map_or(usize::MAX, |most| usize::try_from(most.saturating_sub(OWN_DESCRIPTORS)).unwrap_or(usize::MAX));
    let affordable = wanted.min(most.max(FEWEST_CONNECTIONS));
    if affordable < wanted {
        tracing::warn!(wanted, affordable, "the system grants too few open files for server.max_connections; fewer connections are taken (see ulimit -n)");
    }
    affordable
}

/// Accepts connections until the port closes, then lets calls under way end.
pub(super) async fn accept(listener: TcpListener, port: Arc<Port>) {
    let places = Arc::new(Places::new(port.connections()));
    let connections = TaskTracker::new();
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(fault) => {
                    tracing::warn!(error = %fault, "a connection could not be accepted");
                    places.ask_to_leave();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = port.closing().cancelled() => break,
        };
        let place = tokio::select! {
            place = places.take() => place,
            () = port.closing().cancelled() => break,
        };
        connections.spawn(connection::serve(Arc::clone(&port), stream, address, place));
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(CLOSE_TIMEOUT, connections.wait()).await.is_err() {
        tracing::info!("some calls did not end in time and were cut off");
        port.cut();
        connections.wait().await;
    }
}

/// The places of a port.
struct Places {
    free: Arc<Semaphore>,
    kept_free: usize,
    taken: Mutex<HashMap<u64, Holder>>,
    numbers: AtomicU64,
}

struct Holder {
    traffic: Arc<Traffic>,
    leave: CancellationToken,
}

impl Places {
    fn new(most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(most)), kept_free: most / FREE_PART, taken: Mutex::default(), numbers: AtomicU64::new(0) }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u64, Holder>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. Idle connections are asked to make room, before there is none.
    async fn take(self: &Arc<Self>) -> Place {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                if self.free.available_permits() < self.kept_free {
                    self.ask_to_leave();
                }
                return self.enter(permit);
            }
            self.ask_to_leave();
            if let Ok(Ok(permit)) = tokio::time::timeout(PATIENCE, Arc::clone(&self.free).acquire_owned()).await {
                return self.enter(permit);
            }
        }
    }

    fn enter(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let (traffic, leave) = (Arc::new(Traffic::default()), CancellationToken::new());
        let number = self.numbers.fetch_add(1, Relaxed);
        self.taken().insert(number, Holder { traffic: Arc::clone(&traffic), leave: leave.clone() });
        Place { traffic, leave, number, places: Arc::clone(self), _permit: permit }
    }

    /// Asks the connection that is missed least to leave; none, when all have calls.
    fn ask_to_leave(&self) {
        let taken = self.taken();
        let idle = taken.values().filter(|holder| !holder.leave.is_cancelled());
        let ranked = idle.filter_map(|holder| Some((holder.traffic.dispensability()?, holder)));
        if let Some((_, holder)) = ranked.min_by_key(|(rank, _)| *rank) {
            holder.leave.cancel();
        }
    }
}

/// The place of a connection; free again when it is dropped.
pub(super) struct Place {
    /// What the connection does.
    pub(super) traffic: Arc<Traffic>,
    /// Cancelled when the connection is to make room.
    pub(super) leave: CancellationToken,
    number: u64,
    places: Arc<Places>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::super::traffic::Call;
    use super::*;

    #[tokio::test]
    async fn who_is_missed_least_leaves_first() {
        let places = Arc::new(Places::new(3));
        let (busy, used, silent) = (places.take().await, places.take().await, places.take().await);
        let call = Call::begin(&busy.traffic);
        used.traffic.asked();
        let fourth = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await }
        });
        silent.leave.cancelled().await;
        assert!(!used.leave.is_cancelled(), "it has made calls");
        // Who was asked and stays does not keep the next from being asked.
        used.leave.cancelled().await;
        assert!(!busy.leave.is_cancelled());
        drop((silent, used));
        let fourth = fourth.await.unwrap();
        assert_eq!(places.free.available_permits(), 1);
        drop((call, busy, fourth));
        assert!(places.taken().is_empty());
    }

    #[tokio::test]
    async fn some_places_are_kept_free() {
        let places = Arc::new(Places::new(2 * FREE_PART));
        let mut held = Vec::new();
        for _ in 0..2 * FREE_PART {
            held.push(places.take().await);
        }
        assert_eq!(held.iter().filter(|place| place.leave.is_cancelled()).count(), 2);
        assert!(held[0].leave.is_cancelled(), "the oldest goes first");
    }
}
