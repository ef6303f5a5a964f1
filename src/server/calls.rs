//! What one call may take: a place among those under way, the time and length of its body, the time to take its answer.
//!
//! Long bodies also share a number of places, so that their sum in memory is bounded however many clients send them slowly.

use super::refusal::Refusal;
use super::traffic::{Call, LEAST_RATE};
use crate::api::REQUEST_BYTES;
use crate::config::Limits;
use axum::body::Body;
use axum::http::{HeaderMap, header::CONTENT_LENGTH};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Bodies up to this many bytes need no place of their own.
const SHORT_BODY_BYTES: u64 = 64 * 1024;

/// Most bodies at once that are longer.
const LONG_BODIES: usize = 128;

/// The places of calls.
pub(super) struct Calls {
    places: Arc<Semaphore>,
    long_bodies: Arc<Semaphore>,
    body_timeout: Duration,
}

impl Calls {
    pub(super) fn new(limits: &Limits) -> Self {
        let (places, long_bodies) = (Arc::new(Semaphore::new(limits.max_in_flight)), Arc::new(Semaphore::new(LONG_BODIES)));
        Self { places, long_bodies, body_timeout: limits.body_timeout }
    }

    /// A place for a call.
    ///
    /// # Errors
    ///
    /// [`Refusal::Full`] when there is none.
    pub(super) fn admit(&self, call: Call) -> Result<Admitted, Refusal> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Ok(Admitted { call, _place: place, body_timeout: self.body_timeout }),
            Err(_) => Err(Refusal::Full),
        }
    }

    /// The body of a request under its limits, and what tells afterwards which of them it met.
    pub(super) fn limit(&self, body: Incoming, length: Length) -> (Inbound, Fault) {
        let fault = Fault::default();
        let inbound = Inbound {
            body,
            length,
            received: 0,
            begun_at: Instant::now(),
            body_timeout: self.body_timeout,
            sleep: None,
            long_bodies: Arc::clone(&self.long_bodies),
            place: None,
            fault: fault.clone(),
        };
        (inbound, fault)
    }
}

/// A call that has its place, until the end of its answer.
#[derive(Debug)]
pub(super) struct Admitted {
    call: Call,
    _place: OwnedSemaphorePermit,
    body_timeout: Duration,
}

/// Who bounds the length of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// What reads it: gRPC looks at the length of each message before it takes one, and the REST gateway takes in a little more
    /// than it keeps, so that the client hears why.
    ByReader,
    /// The port.
    ByPort,
}

impl Length {
    /// Whether a body is too long by its own word.
    ///
    /// # Errors
    ///
    /// [`Refusal::Long`] when it is.
    pub(super) fn check(self, headers: &HeaderMap) -> Result<(), Refusal> {
        let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if self == Self::ByPort && told.is_some_and(|length| length > REQUEST_BYTES as u64) { Err(Refusal::Long) } else { Ok(()) }
    }
}

/// Which limit a body met, if any.
#[derive(Clone, Debug, Default)]
pub(super) struct Fault(Arc<OnceLock<Refusal>>);

impl Fault {
    /// The refusal that the client is to see in place of what was made of half a body.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.0.get().copied()
    }
}

/// The error of a body that met a limit.
#[derive(Debug)]
pub(super) struct Limited(Refusal);

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Refusal::Late => "the body did not arrive in time",
            Refusal::Long => "the body is too long",
            Refusal::Full | Refusal::Forbidden(_) => "too many long bodies are under way",
        })
    }
}

impl std::error::Error for Limited {}

/// The body of a request under its limits.
pub(super) struct Inbound {
    body: Incoming,
    length: Length,
    received: u64,
    begun_at: Instant,
    body_timeout: Duration,
    /// Made only for a body that is waited for.
    sleep: Option<Pin<Box<Sleep>>>,
    long_bodies: Arc<Semaphore>,
    place: Option<OwnedSemaphorePermit>,
    fault: Fault,
}

impl Inbound {
    fn refuse<T>(&mut self, refusal: Refusal) -> Poll<Option<Result<T, BoxError>>> {
        let _ = self.fault.0.set(refusal);
        self.place = None;
        Poll::Ready(Some(Err(Limited(refusal).into())))
    }

    /// Whether so much may be received.
    fn count(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.received = self.received.saturating_add(bytes as u64);
        if self.length == Length::ByPort && self.received > REQUEST_BYTES as u64 {
            return Err(Refusal::Long);
        }
        if self.received > SHORT_BODY_BYTES && self.place.is_none() {
            self.place = Some(Arc::clone(&self.long_bodies).try_acquire_owned().map_err(|_| Refusal::Full)?);
        }
        Ok(())
    }

    /// When the body is late: after its time, and what the bytes so far need at the least rate.
    fn late_at(&self) -> Instant {
        self.begun_at + self.body_timeout + Duration::from_secs(self.received / LEAST_RATE)
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl HttpBody for Inbound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(refusal) = self.fault.refusal() {
            return self.refuse(refusal);
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                match self.count(bytes) {
                    // Also a body that never stands still has an end to its time.
                    Ok(()) if Instant::now() <= self.late_at() => Poll::Ready(Some(Ok(frame))),
                    Ok(()) => self.refuse(Refusal::Late),
                    Err(refusal) => self.refuse(refusal),
                }
            }
            Poll::Ready(Some(Err(fault))) => Poll::Ready(Some(Err(fault.into()))),
            Poll::Ready(None) => {
                self.place = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let late_at = self.late_at();
                let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(late_at)));
                if sleep.deadline() != late_at {
                    sleep.as_mut().reset(late_at);
                }
                if sleep.as_mut().poll(cx).is_ready() { self.refuse(Refusal::Late) } else { Poll::Pending }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer, with the place of its call until its end.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    body: Body,
    admitted: Option<Admitted>,
}

impl Outbound {
    /// The answer of a call.
    pub(super) fn of(body: Body, admitted: Admitted) -> Self {
        admitted.call.waits_for_client(0, admitted.body_timeout);
        Self { body, admitted: Some(admitted) }
    }

    /// The answer to a request that became no call.
    pub(super) fn bare(body: Body) -> Self {
        Self { body, admitted: None }
    }
}

impl HttpBody for Outbound {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(admitted) = &self.admitted {
            match &frame {
                Poll::Ready(Some(Ok(frame))) => admitted.call.waits_for_client(frame.data_ref().map_or(0, Bytes::len), admitted.body_timeout),
                Poll::Ready(Some(Err(_)) | None) => self.admitted = None,
                Poll::Pending => admitted.call.waits_for_us(),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
