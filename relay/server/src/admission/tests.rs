use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use towpath_relay_proto::token::{Claims, SigningKey};
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::key::NodePrivate;
use towpath_wire::sealed::SharedKey;

use super::confirm::Connections;
use super::*;
use crate::config::Confirm;

/// A backend that says of each key what it is told to, and of others that it cannot tell.
#[derive(Clone, Default)]
struct Scripted(Arc<Script>);

#[derive(Default)]
struct Script {
    answers: Mutex<HashMap<NodePublic, Answer>>,
    asked: Mutex<Vec<Question>>,
    takes: Mutex<Duration>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Scripted {
    fn say(&self, key: NodePublic, answer: Answer) {
        lock(&self.0.answers).insert(key, answer);
    }

    /// From now on the backend is dead.
    fn die(&self) {
        lock(&self.0.answers).clear();
    }

    fn asked(&self) -> usize {
        lock(&self.0.asked).len()
    }
}

impl Backend for Scripted {
    fn ask(&self, question: Question) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(async move {
            let asked = {
                let mut asked = lock(&self.0.asked);
                asked.push(question);
                asked.len()
            };
            let now = self.0.now.fetch_add(1, Ordering::Relaxed) + 1;
            self.0.most.fetch_max(now, Ordering::Relaxed);
            let takes = *lock(&self.0.takes);
            // Of questions that are asked at once, half are answered later.
            sleep(if asked.is_multiple_of(2) { 2 * takes } else { takes }).await;
            self.0.now.fetch_sub(1, Ordering::Relaxed);
            lock(&self.0.answers).get(&question.key).copied().unwrap_or(Answer::CannotTell)
        })
    }
}

/// The connections of a relay that has no data plane.
#[derive(Default)]
struct Connected {
    keys: Mutex<HashSet<NodePublic>>,
    /// Each with the second in which it was closed.
    closed: Mutex<HashMap<NodePublic, Instant>>,
}

impl Connections for Connected {
    fn has(&self, key: &NodePublic) -> bool {
        lock(&self.keys).contains(key)
    }

    fn revoke(&self, key: &NodePublic) {
        lock(&self.keys).remove(key);
        lock(&self.closed).insert(*key, Instant::now());
    }
}

fn key(seed: u32) -> NodePublic {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&seed.to_be_bytes());
    NodePrivate::from_random(bytes).public()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn home() -> IpAddr {
    ip("192.0.2.1")
}

struct Setup {
    engine: Arc<Engine>,
    backend: Scripted,
    connected: Arc<Connected>,
    tasks: Vec<JoinHandle<()>>,
}

impl Setup {
    fn new(
        order: &[PolicyName],
        require: &[PolicyName],
        admit_unknown: bool,
        state_dir: Option<&Path>,
    ) -> Self {
        Self::with(Scripted::default(), AllowedKeys::default(), order, require, admit_unknown, state_dir)
    }

    fn verify() -> Self {
        Self::new(&[PolicyName::VerifyUrl], &[], false, None)
    }

    /// A key logged in, left, and has been away for an hour.
    async fn with_a_key_that_has_left() -> Self {
        let mut setup = Self::verify();
        setup.run();
        setup.backend.say(key(1), Answer::Allow);
        assert!(setup.log_in(key(1)).await.is_ok());
        lock(&setup.connected.keys).clear();
        sleep(Duration::from_secs(3600)).await;
        setup
    }

    fn with(
        backend: Scripted,
        allowed: AllowedKeys,
        order: &[PolicyName],
        require: &[PolicyName],
        admit_unknown: bool,
        state_dir: Option<&Path>,
    ) -> Self {
        let settings = AdmissionSettings {
            order: PolicyOrder { order: order.to_vec(), require: require.to_vec() },
            allow_list: None,
            tokens: None,
            confirm: Confirm {
                interval: Duration::from_secs(60),
                grace: Duration::from_secs(86_400),
                admit_unknown,
            },
            state_dir: state_dir.map(Path::to_owned),
        };
        let policies = Policies {
            allow_list: Some(AllowList::new(allowed)),
            backends: vec![(PolicyName::VerifyUrl, Box::new(backend.clone()))],
            ..Policies::default()
        };
        Self::of(&settings, policies, backend)
    }

    fn of(settings: &AdmissionSettings, policies: Policies, backend: Scripted) -> Self {
        let metrics = AdmissionMetrics::register(&Registry::new()).expect("the names are free");
        let engine = Arc::new(Engine::new(settings, policies, metrics));
        Self { engine, backend, connected: Arc::default(), tasks: Vec::new() }
    }

    /// Runs the tasks of the engine.
    fn run(&mut self) {
        let engine = self.engine.clone();
        self.tasks.push(tokio::spawn(engine.clone().keep_confirming(self.connected.clone())));
        self.tasks.push(tokio::spawn(engine.keep_saving()));
    }

    async fn log_in(&self, key: NodePublic) -> Result<PolicyName, Rejection> {
        let admitted = self.engine.admit(key, home(), None).await;
        if admitted.is_ok() {
            lock(&self.connected.keys).insert(key);
        }
        admitted
    }

    fn closed(&self) -> HashMap<NodePublic, Instant> {
        lock(&self.connected.closed).clone()
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn refused() -> Result<PolicyName, Rejection> {
    Err(Rejection::Asked(NotAdmitted::Refused))
}

fn unknown() -> Result<PolicyName, Rejection> {
    Err(Rejection::Asked(NotAdmitted::CannotTell))
}

#[tokio::test(start_paused = true)]
async fn an_open_relay_keeps_nothing_of_any_key() {
    let setup = Setup::new(&[PolicyName::Open], &[], false, None);
    assert_eq!(setup.log_in(key(1)).await, Ok(PolicyName::Open));
    assert!(lock(&setup.engine.keys).is_empty());
    setup.engine.note_refusal(key(1), home(), RefusalReason::AppName, REFUSAL_HOLDS, false);
    assert!(!setup.engine.refused_before(&key(1), home()));
}

#[tokio::test(start_paused = true)]
async fn a_known_key_waits_for_no_backend() {
    let setup = Setup::verify();
    setup.backend.say(key(1), Answer::Allow);
    assert_eq!(setup.log_in(key(1)).await, Ok(PolicyName::VerifyUrl));
    setup.backend.die();
    *lock(&setup.backend.0.takes) = Duration::from_secs(3600);
    let start = Instant::now();
    assert_eq!(setup.log_in(key(1)).await, Ok(PolicyName::VerifyUrl));
    assert_eq!((start.elapsed(), setup.backend.asked()), (Duration::ZERO, 1));
    assert_eq!(setup.log_in(key(2)).await, unknown());
    assert_eq!(start.elapsed(), ASK_TIMEOUT, "an unknown key waits for the answer");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_holds_for_the_same_host_and_is_told_again_without_asking() {
    let setup = Setup::verify();
    setup.backend.say(key(1), Answer::Refuse);
    assert!(!setup.engine.refused_before(&key(1), home()));
    assert_eq!(setup.log_in(key(1)).await, refused());
    assert!(setup.engine.refused_before(&key(1), home()));
    assert!(!setup.engine.refused_before(&key(1), ip("192.0.2.2")));
    sleep(REFUSAL_HOLDS).await;
    assert!(!setup.engine.refused_before(&key(1), home()));
    let (last, ago) = setup.engine.last_refusal(&key(1)).expect("it is remembered");
    assert_eq!(
        (last.reason, last.times, last.source, ago),
        (RefusalReason::NotAdmitted, 2, home(), REFUSAL_HOLDS)
    );
    setup.backend.say(key(1), Answer::Allow);
    assert_eq!(setup.log_in(key(1)).await, Ok(PolicyName::VerifyUrl));
}

#[tokio::test(start_paused = true)]
async fn a_host_with_many_refused_keys_is_not_asked_about_and_known_keys_behind_it_are_admitted() {
    let setup = Setup::verify();
    setup.backend.say(key(0), Answer::Allow);
    assert!(setup.log_in(key(0)).await.is_ok());
    for seed in 1..=1000 {
        setup.backend.say(key(seed), Answer::Refuse);
        let expected = if seed <= 32 { refused() } else { Err(Rejection::Rate) };
        assert_eq!(setup.log_in(key(seed)).await, expected, "{seed}");
    }
    assert_eq!(setup.backend.asked(), 33);
    assert!(setup.log_in(key(0)).await.is_ok(), "an admitted key of the same host");
    setup.backend.say(key(2000), Answer::Allow);
    assert!(setup.engine.admit(key(2000), ip("192.0.2.2"), None).await.is_ok(), "another host");
    sleep(Duration::from_secs(1)).await;
    assert!(setup.log_in(key(2000)).await.is_ok(), "a second later");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_admitted_without_an_answer_only_where_that_is_configured() {
    for (admit_unknown, expected) in [(false, unknown()), (true, Ok(PolicyName::VerifyUrl))] {
        let mut setup = Setup::new(&[PolicyName::AllowList, PolicyName::VerifyUrl], &[], admit_unknown, None);
        setup.run();
        assert_eq!(setup.log_in(key(1)).await, expected);
        sleep(Duration::from_secs(200_000)).await;
        assert!(setup.closed().is_empty(), "it works for as long as the backend is away");
        assert!(setup.engine.records().is_empty(), "and no later run knows it");
        setup.backend.say(key(1), Answer::Refuse);
        sleep(Duration::from_secs(61)).await;
        assert_eq!(
            setup.closed().contains_key(&key(1)),
            admit_unknown,
            "closed as soon as the backend says so"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_is_gone_within_the_interval() {
    let mut setup = Setup::verify();
    setup.run();
    for seed in 0..20 {
        setup.backend.say(key(seed), Answer::Allow);
        assert!(setup.log_in(key(seed)).await.is_ok());
        sleep(Duration::from_millis(1700)).await;
    }
    sleep(Duration::from_secs(300)).await;
    assert!(setup.closed().is_empty());
    let revoked = Instant::now();
    (0..20).for_each(|seed| setup.backend.say(key(seed), Answer::Refuse));
    sleep(Duration::from_secs(65)).await;
    let closed = setup.closed();
    assert_eq!(closed.len(), 20);
    let latest = closed.values().max().expect("some").duration_since(revoked);
    assert!(latest <= Duration::from_secs(61), "{latest:?}");
    assert_eq!(setup.log_in(key(3)).await, refused(), "and it does not come back");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_has_left_is_not_asked_about() {
    let setup = Setup::with_a_key_that_has_left().await;
    assert_eq!(setup.backend.asked(), 1);
    assert!(setup.log_in(key(1)).await.is_ok());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(setup.backend.asked(), 2, "it is asked about after it has come back");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_returns_is_asked_about_also_if_its_connection_begins_after_the_first_look() {
    let setup = Setup::with_a_key_that_has_left().await;
    setup.backend.say(key(1), Answer::Refuse);
    assert!(setup.engine.admit(key(1), home(), None).await.is_ok());
    sleep(Duration::from_secs(3)).await;
    assert_eq!(setup.backend.asked(), 1, "it is not connected yet");
    lock(&setup.connected.keys).insert(key(1));
    sleep(Duration::from_secs(2)).await;
    assert!(setup.closed().contains_key(&key(1)));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_begins_after_its_key_was_revoked_is_closed() {
    let mut setup = Setup::verify();
    setup.run();
    for seed in [1, 2] {
        setup.backend.say(key(seed), Answer::Allow);
        assert!(setup.log_in(key(seed)).await.is_ok());
        setup.backend.say(key(seed), Answer::Refuse);
    }
    sleep(Duration::from_millis(61_500)).await;
    assert_eq!(setup.closed().len(), 2);
    let revoked = Instant::now();
    // Its login had been admitted before.
    lock(&setup.connected.keys).insert(key(1));
    // This one is allowed again.
    setup.backend.say(key(2), Answer::Allow);
    assert!(setup.log_in(key(2)).await.is_ok());
    sleep(Duration::from_secs(2)).await;
    assert!(setup.closed()[&key(1)] > revoked);
    assert!(setup.closed()[&key(2)] < revoked);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_policy_without_a_backend_had_last_is_forgotten_over_a_restart_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("list");
    let list = |text: &str| {
        fs::write(&path, text).expect("a file");
        AllowedKeys::read(&path).expect("a list")
    };
    let order = [PolicyName::AllowList, PolicyName::VerifyUrl];
    let backend = Scripted::default();
    let start = |keys| Setup::with(backend.clone(), keys, &order, &[], false, Some(folder.path()));
    let mut setup = start(list("#"));
    setup.run();
    backend.say(key(1), Answer::Allow);
    assert_eq!(setup.log_in(key(1)).await, Ok(PolicyName::VerifyUrl));
    assert!(setup.engine.replace_allow_list(list(&key(1).to_string())));
    sleep(Duration::from_secs(61)).await;
    assert_eq!(setup.log_in(key(1)).await, Ok(PolicyName::AllowList));
    backend.say(key(1), Answer::Refuse);
    assert!(setup.engine.replace_allow_list(list("#")));
    sleep(Duration::from_secs(15)).await;
    assert!(setup.closed().contains_key(&key(1)));
    drop(setup);
    backend.die();
    assert_eq!(start(list("#")).log_in(key(1)).await, unknown());
}

#[tokio::test(start_paused = true)]
async fn known_keys_survive_a_dead_backend_and_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let backend = Scripted::default();
    let order = [PolicyName::VerifyUrl];
    {
        let mut before =
            Setup::with(backend.clone(), AllowedKeys::default(), &order, &[], false, Some(folder.path()));
        before.run();
        for seed in 0..100 {
            backend.say(key(seed), Answer::Allow);
            assert!(before.log_in(key(seed)).await.is_ok());
        }
        backend.say(key(7), Answer::Refuse);
        sleep(Duration::from_secs(65)).await;
        assert_eq!(before.closed().len(), 1);
        backend.die();
        sleep(Duration::from_secs(600)).await;
        assert_eq!(before.closed().len(), 1, "a dead backend revokes nothing");
        // The process is killed: nothing is written any more.
    }
    let asked = backend.asked();
    let after = Setup::with(backend.clone(), AllowedKeys::default(), &order, &[], false, Some(folder.path()));
    let start = Instant::now();
    for seed in (0..100).filter(|seed| *seed != 7) {
        assert_eq!(after.log_in(key(seed)).await, Ok(PolicyName::VerifyUrl));
    }
    assert_eq!((start.elapsed(), backend.asked()), (Duration::ZERO, asked));
    assert_eq!(after.log_in(key(7)).await, unknown(), "what was revoked stays unknown");
    // With another order the file gives nothing.
    let other = Setup::with(
        backend,
        AllowedKeys::default(),
        &[PolicyName::AllowList],
        &[],
        false,
        Some(folder.path()),
    );
    assert_eq!(other.log_in(key(1)).await, refused());
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_delays_no_login_and_loses_nothing_once_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let state_dir = folder.path().join("later");
    let backend = Scripted::default();
    let order = [PolicyName::VerifyUrl];
    let mut setup =
        Setup::with(backend.clone(), AllowedKeys::default(), &order, &[], false, Some(&state_dir));
    setup.run();
    for seed in 0..10 {
        backend.say(key(seed), Answer::Allow);
        assert!(setup.log_in(key(seed)).await.is_ok());
    }
    sleep(Duration::from_secs(30)).await;
    let failures = setup.engine.metrics.state_errors.get();
    assert!((2..=4).contains(&failures), "an attempt each 10 s: {failures}");
    fs::create_dir(&state_dir).expect("a folder");
    sleep(Duration::from_secs(11)).await;
    let text = fs::read_to_string(state_dir.join("admitted-keys")).expect("the file");
    assert_eq!(text.lines().count(), 10);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_keys_are_asked_about_a_few_at_a_time_and_each_once() {
    let mut setup = Setup::verify();
    for seed in 0..10_000 {
        setup.backend.say(key(seed), Answer::Allow);
        assert!(setup.log_in(key(seed)).await.is_ok());
    }
    *lock(&setup.backend.0.takes) = Duration::from_millis(50);
    setup.backend.0.most.store(0, Ordering::Relaxed);
    // They were away, and all come back at once.
    sleep(Duration::from_secs(1000)).await;
    for seed in 0..10_000 {
        assert!(setup.log_in(key(seed)).await.is_ok());
    }
    setup.run();
    sleep(Duration::from_secs(40)).await;
    let again: HashSet<_> =
        lock(&setup.backend.0.asked)[10_000..].iter().map(|question| question.key).collect();
    assert_eq!((setup.backend.asked(), again.len()), (20_000, 10_000));
    assert!(setup.backend.0.most.load(Ordering::Relaxed) <= 32);
}

#[tokio::test(start_paused = true)]
async fn policies_that_must_all_allow_are_asked_as_far_as_they_decide() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("list");
    fs::write(&path, format!("{}\n{}\n", key(1), key(2))).expect("a file");
    let list = AllowedKeys::read(&path).expect("a list");
    let require = [PolicyName::VerifyUrl, PolicyName::AllowList];
    let mut setup = Setup::with(Scripted::default(), list, &[PolicyName::Require], &require, false, None);
    setup.run();
    setup.backend.say(key(1), Answer::Allow);
    setup.backend.say(key(3), Answer::Allow);
    assert_eq!(setup.log_in(key(1)).await, Ok(PolicyName::Require));
    assert_eq!(setup.log_in(key(2)).await, unknown());
    assert_eq!(setup.log_in(key(3)).await, refused());
    assert_eq!(setup.backend.asked(), 2, "a key that the list refuses spares the backend");
    setup.backend.die();
    assert_eq!(setup.log_in(key(1)).await, Ok(PolicyName::Require), "known");
    fs::write(&path, format!("{}\n", key(2))).expect("a file");
    assert!(setup.engine.replace_allow_list(AllowedKeys::read(&path).expect("a list")));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(setup.closed().len(), 1, "the list alone refuses");
    assert_eq!(setup.log_in(key(1)).await, refused());

    // The list loses the key while the backend thinks about it.
    setup.backend.say(key(2), Answer::Allow);
    *lock(&setup.backend.0.takes) = Duration::from_secs(2);
    let engine = setup.engine.clone();
    let login = tokio::spawn(async move { engine.admit(key(2), home(), None).await });
    sleep(Duration::from_secs(1)).await;
    fs::write(&path, "#").expect("a file");
    assert!(setup.engine.replace_allow_list(AllowedKeys::read(&path).expect("a list")));
    assert_eq!(login.await.expect("an answer"), refused());
}

#[tokio::test(start_paused = true)]
async fn a_known_key_of_a_group_that_has_left_the_allow_list_is_refused_when_it_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("list");
    let list = |text: &str| {
        fs::write(&path, text).expect("a file");
        AllowedKeys::read(&path).expect("a list")
    };
    let require = [PolicyName::VerifyUrl, PolicyName::AllowList];
    let allowed = list(&key(1).to_string());
    let setup = Setup::with(Scripted::default(), allowed, &[PolicyName::Require], &require, false, None);
    setup.backend.say(key(1), Answer::Allow);
    assert_eq!(setup.log_in(key(1)).await, Ok(PolicyName::Require));
    assert!(setup.engine.replace_allow_list(list("#")));
    assert_eq!(setup.log_in(key(1)).await, refused());
    assert_eq!(setup.backend.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn keys_that_leave_the_allow_list_are_closed_and_others_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("list");
    fs::write(&path, format!("{}\n{}\n", key(1), key(2))).expect("a file");
    let list = AllowedKeys::read(&path).expect("a list");
    let mut setup = Setup::with(
        Scripted::default(),
        list,
        &[PolicyName::AllowList, PolicyName::VerifyUrl],
        &[],
        false,
        None,
    );
    setup.run();
    setup.backend.say(key(2), Answer::Refuse);
    assert_eq!(setup.log_in(key(1)).await, Ok(PolicyName::AllowList));
    assert_eq!(setup.log_in(key(2)).await, Ok(PolicyName::AllowList));
    fs::write(&path, format!("{}\n", key(1))).expect("a file");
    assert!(setup.engine.replace_allow_list(AllowedKeys::read(&path).expect("a list")));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(setup.closed().into_keys().collect::<Vec<_>>(), [key(2)]);
}

#[tokio::test(start_paused = true)]
async fn clients_are_closed_when_their_tokens_expire_or_lose_their_issuer() {
    let issuer = |seed| SigningKey::from_random(&[seed; 32]);
    let accepted = |seeds: &[u8]| {
        let lines: Vec<_> = seeds.iter().map(|&seed| issuer(seed).public().to_string()).collect();
        TokenKeys::parse(&lines.join("\n")).expect("keys")
    };
    let confirm = Confirm {
        interval: Duration::from_secs(60),
        grace: Duration::from_secs(86_400),
        admit_unknown: false,
    };
    let order = PolicyOrder { order: vec![PolicyName::Tokens], require: vec![] };
    let settings = AdmissionSettings { order, allow_list: None, tokens: None, confirm, state_dir: None };
    let policies = Policies { tokens: Some(Tokens::new(accepted(&[1, 2]))), ..Policies::default() };
    let mut setup = Setup::of(&settings, policies, Scripted::default());
    setup.run();
    let (relay, now) = (NodePrivate::from_random([2; 32]), setup.engine.clock.unix());
    for (number, seed, life) in [(1, 1, 90), (2, 1, 7200), (3, 2, 7200)] {
        let client = key(number);
        let claims = Claims { client, relay: None, expires: now + life, not_before: None, issued: None };
        let token = issuer(seed).issue(&claims).ok();
        let shared = SharedKey::new(&relay, &client);
        let introduction =
            Introduction { client, info: ClientInfo { token, ..ClientInfo::default() }, shared };
        let token = setup.engine.judge_token(&introduction, &relay.public());
        assert_eq!(setup.engine.admit(client, home(), token).await, Ok(PolicyName::Tokens));
        lock(&setup.connected.keys).insert(client);
    }
    sleep(Duration::from_secs(80)).await;
    assert!(setup.closed().is_empty(), "each was asked about once and holds");
    sleep(Duration::from_secs(45)).await;
    assert_eq!(setup.closed().into_keys().collect::<Vec<_>>(), [key(1)]);
    assert!(!setup.engine.replace_token_keys(accepted(&[1, 2])), "nothing has changed");
    assert!(setup.engine.replace_token_keys(accepted(&[2])));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(setup.closed().into_keys().collect::<HashSet<_>>(), HashSet::from([key(1), key(2)]));
}

/// A backend that fails as no program should.
struct Panicking;

impl Backend for Panicking {
    fn ask(&self, _: Question) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(async { panic!("a fault of the relay") })
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_panics_cannot_tell_and_its_key_is_asked_about_again() {
    let mut setup = Setup::verify();
    setup.backend.say(key(1), Answer::Allow);
    assert!(setup.log_in(key(1)).await.is_ok());
    let engine = Arc::get_mut(&mut setup.engine).expect("nothing runs yet");
    engine.policies.backends[0].1 = Box::new(Panicking);
    assert_eq!(setup.log_in(key(1)).await, Ok(PolicyName::VerifyUrl), "it is known");
    setup.run();
    sleep(Duration::from_secs(130)).await;
    assert!(setup.closed().is_empty());
    assert!(setup.engine.metrics.confirmations(Answer::CannotTell) >= 2, "each interval");
}

#[tokio::test(start_paused = true)]
async fn tokens_expire_by_a_system_clock_that_is_set_right_after_the_start() {
    let behind = Clock { start: Instant::now(), unix_start: 0 };
    assert!(behind.unix() >= unix_now());
    let ahead = Clock { start: Instant::now(), unix_start: u64::MAX / 4 };
    sleep(Duration::from_secs(9)).await;
    assert_eq!(ahead.unix(), i64::MAX / 2 + 9);
}
