//! The time that a gRPC client gives a call: after it the call ends with DEADLINE_EXCEEDED, also in the midst of a stream of
//! answers, and what worked on it stops.

use crate::api::timeout;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use futures_util::future::{Either, Ready, ready};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tower::Service;

/// A gRPC service whose calls end in time.
#[derive(Clone)]
pub(super) struct Deadline<S>(pub(super) S);

impl<S, B> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Either<Ready<Result<Response<Body>, S::Error>>, Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let time = match timeout::of(request.headers()) {
            Ok(None) => return Either::Left(self.0.call(request)),
            Ok(Some(time)) => time,
            Err(fault) => return Either::Right(Either::Left(ready(Ok(Status::invalid_argument(fault.to_string()).into_http())))),
        };
        // A time that no clock can show never ends.
        let Some(until) = Instant::now().checked_add(time) else { return Either::Left(self.0.call(request)) };
        let call = self.0.call(request);
        Either::Right(Either::Right(Box::pin(async move {
            match tokio::time::timeout_at(until, call).await {
                Ok(answer) => Ok(answer?.map(|body| Body::new(Timed { body, sleep: Some(Box::pin(tokio::time::sleep_until(until))) }))),
                Err(_) => Ok(exceeded().into_http()),
            }
        })))
    }
}

fn exceeded() -> Status {
    Status::deadline_exceeded("the time that the client gave the call has passed")
}

/// An answer that ends in time.
struct Timed {
    body: Body,
    /// `None` once the answer has ended.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(sleep) = &mut self.sleep else { return Poll::Ready(None) };
        let is_late = sleep.as_mut().poll(cx).is_ready();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match frame {
            Poll::Ready(Some(Ok(ref piece))) if piece.is_trailers() => self.sleep = None,
            Poll::Ready(None) => self.sleep = None,
            Poll::Pending | Poll::Ready(Some(_)) if is_late => {
                (self.body, self.sleep) = (Body::empty(), None);
                let mut trailers = HeaderMap::new();
                // A code and a short text always fit.
                let _ = exceeded().add_header(&mut trailers);
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            Poll::Pending | Poll::Ready(Some(_)) => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.sleep.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // It may end before what the answer promises.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};
    use std::time::Duration;
    use tower::{ServiceExt, service_fn};

    fn request(time: &str) -> Request<Body> {
        Request::builder().header(timeout::HEADER, time).body(Body::empty()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_too_long_ends_with_its_status() {
        let slow = Deadline(service_fn(|_: Request<Body>| async { std::future::pending::<Result<Response<Body>, std::convert::Infallible>>().await }));
        let answer = slow.clone().oneshot(request("1S")).await.unwrap();
        assert_eq!(answer.headers().get("grpc-status").unwrap(), "4");
        let answer = slow.oneshot(request("soon")).await.unwrap();
        assert_eq!(answer.headers().get("grpc-status").unwrap(), "3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_in_its_midst() {
        // Method: a piece each second, without end.
        let endless = Deadline(service_fn(|_: Request<Body>| async {
            let pieces = stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some((Ok::<_, axum::Error>(Frame::data(Bytes::from_static(b"piece"))), ()))
            });
            Ok::<_, std::convert::Infallible>(Response::new(Body::new(StreamBody::new(Box::pin(pieces)))))
        }));
        let collected = endless.oneshot(request("3500m")).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap().get("grpc-status").unwrap(), "4");
        assert_eq!(collected.to_bytes().as_ref(), b"piecepiecepiece");
    }
}
