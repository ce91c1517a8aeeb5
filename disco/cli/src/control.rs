//! What a running peer answers on its control socket.
//!
//! | path | answer |
//! |---|---|
//! | `/status` | the endpoint, its relays and its peers |
//! | `/why?key=KEY` | why the path to a peer is what it is |
//! | `/ping?key=KEY` | asks the peer for an answer; the way and the round trip, or an error |
//! | `/events?after=N` | path changes after that number, of which the first is 1; waits for one for 30 s at most |

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;
use towpath::{Endpoint, NodePublic};
use towpath_service::admin::{Call, OperationAnswer, Operations, Parts};

use crate::journal::Journal;

/// How long a request for events waits for one. The admin socket closes a connection after 60 s.
const EVENTS: Duration = Duration::from_secs(30);

/// What a running peer answers.
pub(crate) struct Control {
    pub(crate) endpoint: Endpoint,
    pub(crate) journal: Arc<Journal>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control(..)")
    }
}

impl Operations for Control {
    fn answer<'a>(
        &'a self,
        call: &'a Call,
    ) -> Pin<Box<dyn Future<Output = Option<OperationAnswer>> + Send + 'a>> {
        Box::pin(async {
            let is_known = ["/status", "/why", "/ping", "/events"].contains(&call.path.as_str());
            if !is_known {
                return None;
            }
            if call.method != Method::GET {
                let mut answer = mistake(StatusCode::METHOD_NOT_ALLOWED, "only GET");
                answer.allow = Some("GET");
                return Some(answer);
            }
            Some(self.get(call).await.unwrap_or_else(|mistake| mistake))
        })
    }
}

impl Control {
    async fn get(&self, call: &Call) -> Result<OperationAnswer, OperationAnswer> {
        match call.path.as_str() {
            "/status" => Ok(found(&self.endpoint.status())),
            "/why" => {
                let key = key(call)?;
                let unknown = || mistake(StatusCode::NOT_FOUND, "this key is not one of `peers`");
                self.endpoint
                    .why(&key)
                    .map(|why| found(&json!({ "why": why, "text": why.to_string() })))
                    .ok_or_else(unknown)
            }
            "/ping" => {
                let pong = self.endpoint.ping(&key(call)?).await;
                pong.map(|pong| found(&pong))
                    .map_err(|error| mistake(StatusCode::BAD_GATEWAY, &error.to_string()))
            }
            _ => {
                let last = self.journal.last();
                let after = match parameter(call, "after") {
                    None => last,
                    Some(text) => text
                        .parse()
                        .map_err(|_| mistake(StatusCode::BAD_REQUEST, "after must be a number"))?,
                };
                Ok(found(&self.journal.after(after, EVENTS).await))
            }
        }
    }
}

fn parameter<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    call.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn key(call: &Call) -> Result<NodePublic, OperationAnswer> {
    let key = parameter(call, "key").and_then(|text| text.parse().ok());
    key.ok_or_else(|| mistake(StatusCode::BAD_REQUEST, "key must be nodekey: and 64 hexadecimal digits"))
}

fn found(value: &impl Serialize) -> OperationAnswer {
    match serde_json::to_string(value) {
        Ok(text) => OperationAnswer { status: StatusCode::OK, parts: Parts::Whole(text + "\n"), allow: None },
        Err(_) => mistake(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written as JSON"),
    }
}

fn mistake(status: StatusCode, error: &str) -> OperationAnswer {
    let text = json!({ "error": error }).to_string() + "\n";
    OperationAnswer { status, parts: Parts::Whole(text), allow: None }
}
