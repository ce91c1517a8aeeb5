//! Requests without end on one HTTP connection.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::alone;
use crate::attacker::{refused, secured};
use crate::common::{PATIENCE, Relay, trusting_anyone};
use crate::honest::Pair;

/// Answers of the relay to one connection.
const ANSWERS: usize = 16;

#[tokio::test]
async fn a_connection_has_sixteen_answers_and_is_closed() {
    let _alone = alone().await;
    let relay = Relay::start("");
    let mut pair = Pair::new(&relay).await;
    let config = Arc::new(trusting_anyone());
    for attack in 1..=20 {
        let mut stream = secured(9, &relay, &config).await.expect("a handshake");
        let requests = b"GET /derp/probe HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
        stream.write_all(&requests).await.expect("the relay takes the bytes");
        stream.flush().await.expect("the relay takes the bytes");
        let mut answers = Vec::new();
        let mut buffer = [0; 4096];
        // The end may be a reset, because the relay does not read what is behind the last request that it answers.
        while let Ok(read @ 1..) = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("closed") {
            answers.extend_from_slice(&buffer[..read]);
        }
        let answers = String::from_utf8_lossy(&answers).into_owned();
        assert!(answers.matches("HTTP/1.1 200 ").count() <= ANSWERS, "{answers}");
        relay.wait("it is counted", |relay| refused(relay, "http_requests") == attack);
        pair.exchange(5).await;
    }
}

#[tokio::test]
async fn the_last_answer_says_that_it_is_the_last() {
    let _alone = alone().await;
    let relay = Relay::start("");
    let mut stream = secured(9, &relay, &Arc::new(trusting_anyone())).await.expect("a handshake");
    let mut buffer = [0; 4096];
    for answer in 1..=ANSWERS {
        stream
            .write_all(b"GET /derp/probe HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .expect("the relay reads");
        stream.flush().await.expect("the relay reads");
        let read = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("an answer").expect("an answer");
        let head = String::from_utf8_lossy(&buffer[..read]).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{answer}: {head}");
        assert_eq!(head.contains("connection: close"), answer == ANSWERS, "{answer}: {head}");
    }
    let end = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("closed");
    assert!(matches!(end, Ok(0)), "{end:?}");
}
