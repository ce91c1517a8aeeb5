//! The local tailscaled in memory: what it answers in each of its states.

use super::*;

/// The answer of a tailscaled, which says its version in each.
fn answer(status: &str, body: &str) -> String {
    http(status, body).replacen("\r\n", "\r\nTailscale-Version: 1.104.6\r\nTailscale-Cap: 148\r\n", 1)
}

fn unknown() -> String {
    answer("404 Not Found", "no match for IP:port\n")
}

fn state(text: &str) -> String {
    answer("200 OK", text)
}

const RUNNING: &str = r#"{"BackendState":"Running","CurrentTailnet":{"Name":"tailnet.test"}}"#;

/// What a tailscaled says of a key: `whois` and `status` are its answers.
async fn told(whois: String, status: String) -> Told {
    let (connector, _) = answering(move |request| {
        if request.starts_with("GET /localapi/v0/status?peers=false HTTP/1.1\r\n") {
            return status.clone();
        }
        let question = format!("GET /localapi/v0/whois?addr=nodekey%3A{} HTTP/1.1\r\n", key(1).to_hex());
        assert!(request.starts_with(&question), "{request}");
        assert!(request.contains("\r\nhost: local-tailscaled.sock\r\n"), "{request}");
        assert!(request.contains("\r\ntailscale-cap: 148\r\n"), "{request}");
        whois.clone()
    });
    tailscaled(connector).told(question(1)).await
}

#[tokio::test(start_paused = true)]
async fn a_known_key_is_allowed_and_an_unknown_one_refused_once_the_nodes_are_there() {
    assert_eq!(told(answer("200 OK", "{}"), String::new()).await, Told::Allow);
    assert_eq!(
        told(answer("200 OK", &" ".repeat(1 << 20)), String::new()).await,
        Told::Allow,
        "a long description"
    );
    assert_eq!(told(unknown(), state(RUNNING)).await, Told::Refuse);
    let starting = r#"{"BackendState":"Starting","CurrentTailnet":{}}"#;
    assert_eq!(told(unknown(), state(starting)).await, Told::Refuse);
}

#[tokio::test(start_paused = true)]
async fn a_tailscaled_without_its_nodes_cannot_tell() {
    for status in [
        r#"{"BackendState":"NoState"}"#,
        r#"{"BackendState":"Starting","CurrentTailnet":null}"#,
        r#"{"BackendState":"NeedsLogin"}"#,
        r#"{"BackendState":"Stopped","CurrentTailnet":{}}"#,
    ] {
        assert_eq!(
            told(unknown(), state(status)).await,
            Told::CannotTell(BackendFailure::NotReady),
            "{status}"
        );
    }
    let told = told(unknown(), state("<html>")).await;
    assert_eq!(told, Told::CannotTell(BackendFailure::NotJson));
}

#[tokio::test(start_paused = true)]
async fn the_nodes_that_arrive_between_two_questions_are_not_refused() {
    let asked = AtomicUsize::new(0);
    let (connector, accepts) = answering(move |request| {
        if request.contains("/status") {
            return state(RUNNING);
        }
        // The list of nodes comes behind the first question.
        if asked.fetch_add(1, Ordering::Relaxed) == 0 { unknown() } else { answer("200 OK", "{}") }
    });
    assert_eq!(tailscaled(connector).told(question(1)).await, Told::Allow);
    assert_eq!(accepts.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_else_answers_at_the_socket_cannot_tell() {
    let too_old = answer("400 Bad Request", "invalid 'addr' parameter\n");
    for (what, whois, expected) in [
        ("an old tailscaled", too_old, BackendFailure::TooOld),
        ("another mistake", answer("400 Bad Request", "bad request"), BackendFailure::ClientError),
        ("no rights", answer("403 Forbidden", "whois access denied\n"), BackendFailure::Denied),
        ("no backend", answer("500 Internal Server Error", ""), BackendFailure::ServerError),
        ("no such request", answer("404 Not Found", "404 page not found\n"), BackendFailure::NotTailscaled),
        ("another program that says no", http("404 Not Found", ""), BackendFailure::NotTailscaled),
        ("another program that says yes", http("200 OK", "{}"), BackendFailure::NotTailscaled),
        ("another protocol", "* OK IMAP4rev1\r\n".into(), BackendFailure::NotHttp),
    ] {
        assert_eq!(told(whois, state(RUNNING)).await, Told::CannotTell(expected), "{what}");
    }
    let begun = Instant::now();
    let (connector, _) = memory(|stream, _| async move {
        sleep(600 * SECOND).await;
        drop(stream);
    });
    let told = tailscaled(connector).told(question(1)).await;
    assert_eq!((told, begun.elapsed()), (Told::CannotTell(BackendFailure::Timeout), 5 * SECOND));
}
