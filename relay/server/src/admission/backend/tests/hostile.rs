//! Backends that answer badly: each is told by its label, within its bound.

use super::*;

/// What a backend does with the connection after it has read the question.
#[derive(Clone)]
enum Deed {
    /// Writes this and keeps the connection open.
    Write(String),
    /// Writes this and closes.
    WriteAndClose(String),
    /// Writes the first, and then the second again and again, with this pause.
    Repeat(String, String, Duration),
}

async fn act(mut stream: DuplexStream, deed: Deed) {
    if read_request(&mut stream).await.is_none() {
        return;
    }
    match deed {
        Deed::Write(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            // Until the relay closes.
            let _ = stream.read(&mut [0]).await;
        }
        Deed::WriteAndClose(text) => drop(stream.write_all(text.as_bytes()).await),
        Deed::Repeat(head, part, pause) => {
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(part.as_bytes()).await.is_ok() {
                if pause.is_zero() { tokio::task::yield_now().await } else { sleep(pause).await }
            }
        }
    }
}

/// Checks what a backend that does `deed` comes to, and how long that took.
async fn check(what: &str, deed: Deed, expected: BackendFailure, took: Duration) {
    let (connector, accepts) = memory(move |stream, _| act(stream, deed.clone()));
    let (policy, registry) = verify_url(connector);
    let begun = Instant::now();
    assert_eq!(policy.told(question(1)).await, Told::CannotTell(expected), "{what}");
    // Timers are as fine as a millisecond.
    let late = begun.elapsed().checked_sub(took);
    assert!(late.is_some_and(|late| late < SECOND / 100), "{what}: {:?}", begun.elapsed());
    assert_eq!(outcome(&registry, expected.label()), 1, "{what}");
    assert_eq!(metric(&registry, "towpath_admission_requests_in_flight{policy=\"verify_url\"}"), 0);
    assert_eq!(accepts.load(Ordering::Relaxed), 1, "{what}: a new connection is no reason to ask again");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_takes_its_time_gets_five_seconds_over_everything() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n";
    for (what, deed) in [
        ("hangs before the head", Deed::Write(String::new())),
        ("hangs within the head", Deed::Write("HTTP/1.1 200 OK\r\nContent-".into())),
        ("hangs behind the head", Deed::Write(head.into())),
        ("hangs within the body", Deed::Write(format!("{head}{{\"Allow\":true"))),
        ("drips its head", Deed::Repeat("HTTP/1.1 200 OK\r\nX: ".into(), "a".into(), SECOND / 10)),
        ("drips its body", Deed::Repeat(head.into(), " ".into(), SECOND)),
        (
            "says that it goes on",
            Deed::Repeat(String::new(), "HTTP/1.1 100 Continue\r\n\r\n".into(), SECOND / 100),
        ),
    ] {
        check(what, deed, BackendFailure::Timeout, 5 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_long_is_not_read_to_its_end() {
    let mebibyte = " ".repeat(1 << 20);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let field = |number| format!("X-{number}: a\r\n");
    let fields: String = (0..100).map(field).collect();
    for (what, text, expected) in [
        ("1 MiB", http("200 OK", &format!("{ALLOW}{mebibyte}")), BackendFailure::TooLong),
        ("4 KiB and a byte", http("200 OK", &format!("{ALLOW:4097}")), BackendFailure::TooLong),
        ("a head of 1 MiB", format!("HTTP/1.1 200 OK\r\nX:{mebibyte}\r\n\r\n"), BackendFailure::NotHttp),
        ("100 fields", format!("HTTP/1.1 200 OK\r\n{fields}\r\n{ALLOW}"), BackendFailure::NotHttp),
        ("status 500, 1 MiB", http("500 Internal Server Error", &mebibyte), BackendFailure::ServerError),
    ] {
        check(what, Deed::Write(text), expected, Duration::ZERO).await;
    }
    let endless = Deed::Repeat(chunked.into(), format!("400\r\n{:1024}\r\n", " "), Duration::ZERO);
    check("chunks without end", endless, BackendFailure::TooLong, Duration::ZERO).await;
    let (connector, _) = answering(|_| http("200 OK", &format!("{ALLOW:4096}")));
    assert_eq!(verify_url(connector).0.told(question(1)).await, Told::Allow, "4 KiB are not too long");
}

#[tokio::test(start_paused = true)]
async fn only_status_200_with_the_right_json_decides() {
    let failures = [
        ("200 OK", "<html>It works!</html>", BackendFailure::NotJson),
        ("200 OK", "", BackendFailure::NotJson),
        ("200 OK", "null", BackendFailure::NotJson),
        ("200 OK", r#"{"Allow":"true"}"#, BackendFailure::NotJson),
        ("200 OK", r#"{"Allow":true} and more"#, BackendFailure::NotJson),
        ("201 Created", ALLOW, BackendFailure::OtherStatus),
        ("203 Non-Authoritative Information", ALLOW, BackendFailure::OtherStatus),
        ("301 Moved Permanently", ALLOW, BackendFailure::Redirect),
        ("302 Found", ALLOW, BackendFailure::Redirect),
        ("307 Temporary Redirect", ALLOW, BackendFailure::Redirect),
        ("308 Permanent Redirect", ALLOW, BackendFailure::Redirect),
        ("400 Bad Request", REFUSE, BackendFailure::ClientError),
        ("401 Unauthorized", REFUSE, BackendFailure::ClientError),
        ("403 Forbidden", REFUSE, BackendFailure::ClientError),
        ("404 Not Found", REFUSE, BackendFailure::ClientError),
        ("429 Too Many Requests", REFUSE, BackendFailure::Throttled),
        ("500 Internal Server Error", REFUSE, BackendFailure::ServerError),
        ("502 Bad Gateway", REFUSE, BackendFailure::ServerError),
        ("503 Service Unavailable", REFUSE, BackendFailure::ServerError),
    ];
    for (status, body, expected) in failures {
        let answer = http(status, body).replacen("\r\n", "\r\nLocation: https://other.example/\r\n", 1);
        check(&format!("{status} {body}"), Deed::Write(answer), expected, Duration::ZERO).await;
    }
    for (body, expected) in [(ALLOW, Told::Allow), (REFUSE, Told::Refuse), ("{}", Told::Refuse)] {
        let (connector, _) = answering(move |_| http("200 OK", body));
        assert_eq!(verify_url(connector).0.told(question(1)).await, expected, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_http_or_breaks_off_is_told_apart() {
    let close = |text: &str| Deed::WriteAndClose(text.into());
    for (what, deed, expected) in [
        ("another protocol", Deed::Write("SSH-2.0-OpenSSH_10.0\r\n".into()), BackendFailure::NotHttp),
        ("TLS", Deed::Write("\x15\x03\x01\x00\x02\x02\x28".into()), BackendFailure::NotHttp),
        ("closed without an answer", close(""), BackendFailure::Broken),
        ("closed within the head", close("HTTP/1.1 200 OK\r\nConte"), BackendFailure::Broken),
        (
            "closed within the body",
            close("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"Allow\":true}"),
            BackendFailure::Broken,
        ),
        (
            "closed within a chunk",
            close("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nF\r\n{\"Allow\":true}"),
            BackendFailure::Broken,
        ),
    ] {
        check(what, deed, expected, Duration::ZERO).await;
    }
    // A body that ends with the connection is whole, as HTTP/1.0 has it.
    let until_close = close("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"Allow\":true}");
    let (connector, _) = memory(move |stream, _| act(stream, until_close.clone()));
    assert_eq!(verify_url(connector).0.told(question(1)).await, Told::Allow);
}
