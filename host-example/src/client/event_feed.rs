//! The events of one process as a host tells them: server-sent events, read one by one.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, TryStreamExt};
use reqwest::{Response, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use sse_stream::{Sse, SseByteStream};

use super::{HostClient, HostError};
use crate::{api::process_view::ProcessView, event_view::EventView};

/// The status of a failure that comes as an event: the response that it is told in began well.
#[derive(Deserialize)]
struct FailureStatus {
    status: u16,
}

/// What a host tells of a process.
#[derive(Debug)]
pub(crate) enum Told {
    /// An event, and the place behind it.
    Event {
        /// By which the feed is taken up again.
        place: String,
        /// The event.
        event: Box<EventView>,
    },
    /// The process has ended, and everything was told.
    End(Box<ProcessView>),
    /// The host goes down.
    Stopping,
}

/// A feed that is open.
pub(crate) struct EventFeed {
    client: HostClient,
    events: Pin<Box<dyn Stream<Item = Result<Sse, sse_stream::Error>> + Send>>,
}

impl EventFeed {
    pub(super) fn new(client: HostClient, response: Response) -> Self {
        let bytes = response.bytes_stream().map_err(|error| error.without_url());
        Self { client, events: Box::pin(SseByteStream::new(bytes)) }
    }

    /// What is told next. To drop the future loses nothing.
    ///
    /// # Errors
    /// [`HostError`]; [`HostError::Lost`] when the feed breaks off.
    pub(crate) async fn next(&mut self) -> Result<Told, HostError> {
        loop {
            let place = self.client.place();
            let told = match self.events.next().await {
                Some(Ok(told)) => told,
                Some(Err(error)) => return Err(HostError::Lost(format!("the events of the host at {place}: {error}"))),
                None => return Err(HostError::Lost(format!("the host at {place} ended the events"))),
            };
            let data = told.data.unwrap_or_default();
            match (told.event.as_deref(), told.id) {
                (Some("event"), Some(place)) => return Ok(Told::Event { place, event: Box::new(self.read(&data)?) }),
                (Some("end"), _) => return Ok(Told::End(Box::new(self.read(&data)?))),
                (Some("stopping"), _) => return Ok(Told::Stopping),
                (Some("failed"), _) => {
                    return Err(HostError::of_answer(place, status_of(&data), data.as_bytes(), true));
                }
                // What a later host tells beyond that is none of ours.
                _ => {}
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, data: &str) -> Result<T, HostError> {
        serde_json::from_str(data).map_err(|error| HostError::not_understood(self.client.place(), &error))
    }
}

fn status_of(problem: &str) -> StatusCode {
    let told = serde_json::from_str::<FailureStatus>(problem).ok();
    told.and_then(|told| StatusCode::from_u16(told.status).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Failure, FailureKind};

    async fn failed(data: &str) -> HostError {
        let client = HostClient::at_url("http://h:1", None).expect("a client");
        let response = axum::http::Response::new(format!("event: failed\ndata: {data}\n\n"));
        EventFeed::new(client, response.into()).next().await.expect_err("a failure")
    }

    #[tokio::test]
    async fn a_failure_that_is_told_has_the_status_that_it_says() {
        let passing = failed(r#"{"type":"urn:proctor:problem:busy","status":503,"detail":"d"}"#).await;
        assert!(passing.is_passing(), "{passing:?}");
        let gone = failed(r#"{"type":"urn:proctor:problem:pruned","status":410,"detail":"d"}"#).await;
        assert!(!gone.is_passing(), "{gone:?}");
        assert_eq!(Failure::from(gone).kind(), FailureKind::NoInput);
        let silent = failed(r#"{"type":"urn:proctor:problem:internal","detail":"d"}"#).await;
        assert_eq!(Failure::from(silent).kind(), FailureKind::Software);
    }
}
