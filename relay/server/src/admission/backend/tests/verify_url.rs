//! The contract of the verify URL: what is asked, and over how many connections.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_question_is_the_one_of_derper_with_the_token_of_the_relay() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let (connector, _) = answering(move |request| {
        seen.lock().expect("a list").push(request.to_owned());
        http("200 OK", ALLOW)
    });
    let (policy, registry) = verify_url(connector);
    for source in [Some("203.0.113.7"), Some("::ffff:203.0.113.7"), Some("2001:db8::7"), None] {
        let source = source.map(|source| source.parse().expect("an address"));
        assert_eq!(policy.told(Question { key: key(1), source, token: None }).await, Told::Allow);
    }
    let asked = asked.lock().expect("a list");
    let key = key(1).to_string();
    for (request, source) in asked.iter().zip(["203.0.113.7", "203.0.113.7", "2001:db8::7", ""]) {
        let body = format!(r#"{{"NodePublic":"{key}","Source":"{source}"}}"#);
        let (head, sent) = request.split_once("\r\n\r\n").expect("a head and a body");
        assert_eq!(sent, body);
        let mut lines: Vec<_> = head.lines().collect();
        assert_eq!(lines.remove(0), "POST /verify?tailnet=a HTTP/1.1");
        lines.sort_unstable();
        let expected = [
            "authorization: Bearer secret".into(),
            format!("content-length: {}", body.len()),
            "content-type: application/json".into(),
            "host: 127.0.0.1:8080".into(),
            concat!("user-agent: towpath-relay/", env!("CARGO_PKG_VERSION")).into(),
        ];
        assert_eq!(lines, expected);
    }
    assert!(key.starts_with("nodekey:") && key.len() == "nodekey:".len() + 64);
    assert_eq!(outcome(&registry, "allow"), 4);
    assert_eq!(metric(&registry, "towpath_admission_request_seconds_count{policy=\"verify_url\"}"), 4);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_for_the_next_questions_and_not_for_ever() {
    let (connector, accepts) = answering(|_| http("200 OK", REFUSE));
    let (policy, registry) = verify_url(connector);
    for number in 0..100 {
        assert_eq!(policy.told(question(number)).await, Told::Refuse);
    }
    assert_eq!(accepts.load(Ordering::Relaxed), 1);
    sleep(70 * SECOND).await;
    policy.told(question(0)).await;
    assert_eq!(accepts.load(Ordering::Relaxed), 1, "a recheck finds it");
    sleep(76 * SECOND).await;
    policy.told(question(0)).await;
    assert_eq!(accepts.load(Ordering::Relaxed), 2, "it was idle for too long");
    assert_eq!(outcome(&registry, "refuse"), 102);
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_the_backend_closes_costs_no_answer() {
    // Each connection gives one answer. Half of them close at once, the others when the next question comes.
    let (connector, accepts) = memory(|mut stream, number| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(http("200 OK", ALLOW).as_bytes()).await;
        if number % 2 == 0 {
            read_request(&mut stream).await;
        }
    });
    let (policy, registry) = verify_url(connector);
    for number in 0..20 {
        assert_eq!(policy.told(question(number)).await, Told::Allow, "{number}");
    }
    assert_eq!(accepts.load(Ordering::Relaxed), 20);
    assert_eq!(outcome(&registry, "broken"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_not_asked_for_answers_no_later_question() {
    // The first answer comes with a second one behind it, which allows whatever is asked next.
    let (connector, accepts) = memory(|mut stream, number| async move {
        while read_request(&mut stream).await.is_some() {
            let answer = http("200 OK", REFUSE);
            let stray = if number == 0 { http("200 OK", ALLOW) } else { String::new() };
            let _ = stream.write_all(format!("{answer}{stray}").as_bytes()).await;
        }
    });
    let (policy, _) = verify_url(connector);
    for number in 0..3 {
        assert_eq!(policy.told(question(number)).await, Told::Refuse, "{number}");
    }
    assert_eq!(accepts.load(Ordering::Relaxed), 2, "the connection with the stray answer is not used again");
}

#[tokio::test(start_paused = true)]
async fn questions_about_one_key_share_one_request_though_the_first_has_gone() {
    let (connector, _) = memory(|mut stream, _| async move {
        while read_request(&mut stream).await.is_some() {
            sleep(SECOND).await;
            let _ = stream.write_all(http("200 OK", ALLOW).as_bytes()).await;
        }
    });
    let (policy, registry) = verify_url(connector);
    let ask = |policy: Arc<VerifyUrl>| async move { policy.told(question(1)).await };
    let first = tokio::spawn(ask(policy.clone()));
    sleep(SECOND / 2).await;
    let others: Vec<_> = (0..999).map(|_| tokio::spawn(ask(policy.clone()))).collect();
    sleep(SECOND / 10).await;
    first.abort();
    for other in others {
        assert_eq!(other.await.expect("an answer"), Told::Allow);
    }
    assert_eq!(outcome(&registry, "allow"), 1);
    assert_eq!(metric(&registry, "towpath_admission_questions_shared_total{policy=\"verify_url\"}"), 999);
    assert_eq!(policy.told(question(1)).await, Told::Allow);
    assert_eq!(outcome(&registry, "allow"), 2, "what was answered is asked anew");
}

#[tokio::test(start_paused = true)]
async fn of_ten_thousand_keys_at_once_each_is_asked_once_and_64_at_a_time() {
    let in_flight = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let asked: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let (counted, seen) = (in_flight.clone(), asked.clone());
    let (connector, accepts) = memory(move |mut stream, _| {
        let (counted, seen) = (counted.clone(), seen.clone());
        async move {
            while let Some(request) = read_request(&mut stream).await {
                let now = counted.0.fetch_add(1, Ordering::Relaxed) + 1;
                counted.1.fetch_max(now, Ordering::Relaxed);
                let body = request.split_once("\r\n\r\n").expect("a body").1.to_owned();
                *seen.lock().expect("a table").entry(body).or_default() += 1;
                sleep(Duration::from_millis(20)).await;
                counted.0.fetch_sub(1, Ordering::Relaxed);
                let _ = stream.write_all(http("200 OK", ALLOW).as_bytes()).await;
            }
        }
    });
    let (policy, registry) = verify_url(connector);
    let mut asking = JoinSet::new();
    for number in 0..10_000 {
        let policy = policy.clone();
        asking.spawn(async move { policy.told(question(number)).await });
    }
    assert!(asking.join_all().await.into_iter().all(|told| told == Told::Allow));
    assert_eq!(in_flight.1.load(Ordering::Relaxed), 64);
    assert_eq!(accepts.load(Ordering::Relaxed), 64, "connections are used again");
    let asked = asked.lock().expect("a table");
    assert!(asked.len() == 10_000 && asked.values().all(|times| *times == 1));
    assert_eq!(outcome(&registry, "allow"), 10_000);
    assert_eq!(metric(&registry, "towpath_admission_requests_in_flight{policy=\"verify_url\"}"), 0);
}
