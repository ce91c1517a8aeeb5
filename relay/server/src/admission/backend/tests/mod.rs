//! Tests of the backends: programs in memory on virtual time, which answer as badly as a program can, and real sockets.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::header::HeaderValue;
use prometheus::{Registry, TextEncoder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use towpath_service::config::Value;
use towpath_wire::key::NodePublic;

use super::connect::Connector;
use super::{BackendFailure, BackendMetrics, Question, Tailscaled, Told, VerifySetup, VerifyUrl};
use crate::config::{BackendUrl, VerifySettings};

mod hostile;
mod outage;
mod sockets;
mod tailscaled;
mod verify_url;

const SECOND: Duration = Duration::from_secs(1);
const ALLOW: &str = r#"{"Allow":true}"#;
const REFUSE: &str = r#"{"Allow":false}"#;

/// The key of a client that no other has.
fn key(number: u32) -> NodePublic {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    NodePublic::from_bytes(bytes)
}

fn question(number: u32) -> Question {
    Question { key: key(number), source: Some("203.0.113.7".parse().expect("an address")), token: None }
}

/// A backend in memory that serves each connection by `serve`, which is given the number of the connection. Returns also how
/// many connections there have been.
fn memory<F, Fut>(serve: F) -> (Connector, Arc<AtomicUsize>)
where
    F: Fn(DuplexStream, usize) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (connector, mut accepted) = mpsc::unbounded_channel();
    let accepts = Arc::new(AtomicUsize::new(0));
    let counted = accepts.clone();
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Some(stream) = accepted.recv().await {
            connections.spawn(serve(stream, counted.fetch_add(1, Ordering::Relaxed)));
        }
    });
    (Connector::Memory(connector), accepts)
}

/// A backend in memory that answers each request with what `answer` returns.
fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> (Connector, Arc<AtomicUsize>) {
    let answer = Arc::new(answer);
    memory(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            while let Some(request) = read_request(&mut stream).await {
                if stream.write_all(answer(&request).as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
}

/// Reads one request with its body. `None` at the end of the stream.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().expect("a length")) {
                return Some(text);
            }
        }
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn settings(url: &str) -> VerifySettings {
    VerifySettings {
        url: BackendUrl::from_text(url).expect("a URL"),
        ca_file: None,
        token_file: None,
        timeout: 5 * SECOND,
    }
}

/// A policy that asks a backend in memory, and what it counts.
fn verify_url(connector: Connector) -> (Arc<VerifyUrl>, Registry) {
    let registry = Registry::new();
    let metrics = BackendMetrics::register(&registry).expect("new names");
    let mut token = HeaderValue::from_static("Bearer secret");
    token.set_sensitive(true);
    let setup = VerifySetup {
        settings: settings("http://127.0.0.1:8080/verify?tailnet=a"),
        tls: None,
        authorization: Some(token),
    };
    (Arc::new(VerifyUrl::over(connector, &setup, &metrics)), registry)
}

/// The policy of a tailscaled in memory.
fn tailscaled(connector: Connector) -> Tailscaled {
    let metrics = BackendMetrics::register(&Registry::new()).expect("new names");
    Tailscaled::over(connector, Path::new("/run/tailscaled.sock"), &metrics)
}

/// The value of a metric with these labels, as a scrape has them.
fn metric(registry: &Registry, name: &str) -> u64 {
    let scrape = TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
    let value = scrape.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {scrape}")).parse().expect("a number")
}

fn outcome(registry: &Registry, outcome: &str) -> u64 {
    metric(
        registry,
        &format!("towpath_admission_questions_total{{outcome=\"{outcome}\",policy=\"verify_url\"}}"),
    )
}
