//! Outages of a backend: what each costs the backend and those that ask, and how soon its end is noticed.

use super::super::desk::WAITING;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Asks each 100 ms of ten minutes while the backend is down, then until it has answered. Returns the requests that it got
/// while it was down, and how long the end of the outage went unnoticed.
async fn ask_for_ten_minutes(down: impl Fn() -> Option<String> + Send + Sync + 'static) -> (usize, Duration) {
    let begun = Instant::now();
    let requests = Arc::new(AtomicUsize::new(0));
    let (counted, down) = (requests.clone(), Arc::new(down));
    let (connector, _) = memory(move |mut stream, _| {
        let (counted, down) = (counted.clone(), down.clone());
        async move {
            while read_request(&mut stream).await.is_some() {
                let answer = if begun.elapsed() < 10 * MINUTE {
                    counted.fetch_add(1, Ordering::Relaxed);
                    match down() {
                        Some(answer) => answer,
                        None => std::future::pending().await,
                    }
                } else {
                    http("200 OK", ALLOW)
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    let (policy, _) = verify_url(connector);
    let (mut asking, mut number) = (JoinSet::new(), 0);
    while begun.elapsed() < 10 * MINUTE {
        let policy = policy.clone();
        asking.spawn(async move {
            let begun = Instant::now();
            (policy.told(question(number)).await, begun.elapsed())
        });
        number += 1;
        sleep(SECOND / 10).await;
    }
    let waited = asking.join_all().await.into_iter().filter(|(_, waited)| !waited.is_zero()).count();
    assert!(waited <= requests.load(Ordering::Relaxed), "{waited} questions waited, more than were sent");
    let over = Instant::now();
    while policy.told(question(0)).await != Told::Allow {
        assert!(over.elapsed() < MINUTE, "the end of the outage is not noticed");
        sleep(SECOND / 10).await;
    }
    (requests.load(Ordering::Relaxed), over.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_costs_few_logins_their_five_seconds() {
    let (requests, unnoticed) = ask_for_ten_minutes(|| None).await;
    // 50 come before the first has failed. Later rests are 2 to 4 s long, and each probe takes 5 s.
    assert!((60..=150).contains(&requests), "{requests} requests in ten minutes");
    assert!(unnoticed <= 9200 * SECOND / 1000, "{unnoticed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_fails_at_once_is_not_hammered() {
    let (requests, unnoticed) = ask_for_ten_minutes(|| Some(http("502 Bad Gateway", ""))).await;
    assert!((120..=330).contains(&requests), "{requests} requests in ten minutes");
    assert!(unnoticed <= 4100 * SECOND / 1000, "{unnoticed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_rests_is_told_as_that_and_one_that_fails_now_and_then_does_not_rest() {
    let (connector, _) = answering(|_| http("503 Service Unavailable", ""));
    let (policy, registry) = verify_url(connector);
    for number in 0..10 {
        policy.told(question(number)).await;
    }
    assert_eq!((outcome(&registry, "server_error"), outcome(&registry, "resting")), (3, 7));

    let count = AtomicUsize::new(0);
    let (connector, _) = answering(move |_| match count.fetch_add(1, Ordering::Relaxed) % 3 {
        2 => http("200 OK", ALLOW),
        _ => http("503 Service Unavailable", ""),
    });
    let (policy, registry) = verify_url(connector);
    for number in 0..300 {
        policy.told(question(number)).await;
    }
    assert_eq!((outcome(&registry, "allow"), outcome(&registry, "resting")), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn questions_wait_in_bounded_number_and_for_no_longer_than_their_time() {
    let (connector, accepts) = memory(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    });
    let (policy, registry) = verify_url(connector);
    let mut asking = JoinSet::new();
    let begun = Instant::now();
    let too_many = 100;
    for number in 0..u32::try_from(WAITING + too_many).expect("a number of questions") {
        let policy = policy.clone();
        asking.spawn(async move { (policy.told(question(number)).await, begun.elapsed()) });
    }
    let mut turned_away = 0;
    while let Some(told) = asking.join_next().await {
        let (told, waited) = told.expect("an answer");
        assert!(matches!(told, Told::CannotTell(_)), "{told:?}");
        if waited.is_zero() {
            turned_away += 1;
        }
        assert!(waited <= 5 * SECOND, "{waited:?}");
    }
    assert_eq!(turned_away, too_many);
    assert_eq!(accepts.load(Ordering::Relaxed), 64);
    assert_eq!(outcome(&registry, "timeout"), 64);
    assert_eq!(
        outcome(&registry, "busy") + outcome(&registry, "resting"),
        u64::try_from(WAITING + too_many - 64).expect("a number")
    );
}
