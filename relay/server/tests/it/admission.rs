//! Admission, as clients and operators see it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towpath_relay_client::{Client, Event};
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::derp::mesh::MeshKey;

use crate::common::{MeshFiles, Relay, login, packet, private, trusting_anyone};

/// A relay with an allow list that has the keys of these seeds.
fn listed(seeds: &[u8], settings: &str) -> (tempfile::TempDir, Relay) {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("allowed");
    let keys: String = seeds.iter().map(|&seed| format!("{}\n", private(seed).public())).collect();
    fs::write(&list, keys).expect("a file");
    let relay = Relay::start(&format!("allow_list.file = '{}'\n{settings}", list.display()));
    (folder, relay)
}

fn refused(relay: &Relay, reason: &str) -> u64 {
    relay.metric(&format!("towpath_refused_total{{reason=\"{reason}\"}}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_allow_list_logs_in_and_another_does_not() {
    let (_folder, relay) = listed(&[1, 2], "");
    let (anna, mut sender) = relay.client(1).await;
    let (ben, mut receiver) = relay.client(2).await;
    sender.send(ben, b"hello").await.expect("the relay reads");
    assert_eq!(packet(&mut receiver).await, (anna, b"hello".to_vec()));
    assert!(relay.refuses(3).await);
    relay.wait("the refusal is counted", |relay| refused(relay, "not_admitted") == 1);
    assert!(relay.refuses(3).await);
    relay.wait("the second is counted", |relay| refused(relay, "refused_before") == 1);
    assert_eq!(refused(&relay, "not_admitted"), 1, "nothing was asked again");
    assert_eq!(relay.metric("towpath_admitted_total{policy=\"allow_list\"}"), 2);
}

/// What the relay sends after a ClientInfo, until it closes.
async fn answer_to_login(relay: &Relay) -> Vec<u8> {
    let config = Arc::new(trusting_anyone());
    let (mut stream, key) = login::upgraded(relay.tls(), &config).await;
    stream.write_all(&login::client_info(&key)).await.expect("the relay reads");
    stream.flush().await.expect("the relay reads");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// Frame type 0x14 with a text.
fn health(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    ServerFrame::Health(text).encode(&mut frame);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_refused_is_told_once_and_then_only_closed() {
    let (_folder, relay) = listed(&[1], "");
    let text = "this relay does not admit the node key of this device; ask its operator";
    assert_eq!(answer_to_login(&relay).await, health(text));
    assert_eq!(answer_to_login(&relay).await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_name_is_refused_where_it_is_named_and_counted_where_it_is_not() {
    let (_folder, relay) = listed(&[1], "login.refuse_app_names = ['lurker']");
    let with_name = |name: &[u8]| {
        let app_name = AppName::from_bytes(name).expect("a name");
        relay.dialer().with_info(ClientInfo { version: 2, app_name, ..ClientInfo::default() })
    };
    assert!(with_name(b"lurker").connect(&private(1)).await.is_err());
    relay.wait("the refusal is counted", |relay| refused(relay, "app_name") == 1);
    let _client = with_name(b"Lurker").connect(&private(1)).await.expect("another name");
    assert_eq!(relay.metric("towpath_app_name_logins_total{policy=\"allow_list\"}"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_the_mesh_and_a_prober_are_asked_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, digit: &str| {
        let path = folder.path().join(name);
        fs::write(&path, digit.repeat(64)).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file of this user");
        path
    };
    let (mesh, prober) = (file("mesh", "1"), file("prober", "2"));
    let settings = format!(
        "mesh.key_file = '{}'\nmesh.prober_key_file = '{}'\nlogin.refuse_app_names = ['relay']",
        mesh.display(),
        prober.display()
    );
    let (_list, relay) = listed(&[], &settings);
    for (digit, policy) in [(0x11, "mesh"), (0x22, "prober")] {
        let mesh_key = Some(MeshKey::from_bytes([digit; 32]));
        let app_name = AppName::from_bytes(b"relay").expect("a name");
        let info = ClientInfo { version: 2, mesh_key, app_name, ..ClientInfo::default() };
        let _client = relay.dialer().with_info(info).connect(&private(digit)).await.expect("a login");
        assert_eq!(relay.metric(&format!("towpath_admitted_total{{policy=\"{policy}\"}}")), 1);
    }
    let mesh_key = Some(MeshKey::from_bytes([0x33; 32]));
    let info = ClientInfo { version: 2, mesh_key, ..ClientInfo::default() };
    assert!(relay.dialer().with_info(info).connect(&private(3)).await.is_err());
}

mod tokens {
    use std::time::{SystemTime, UNIX_EPOCH};

    use towpath_relay_client::{DialError, Dialer, LoginError};
    use towpath_relay_proto::token::{Claims, SigningKey, TokenError};
    use towpath_wire::derp::token::Token;
    use towpath_wire::key::NodePublic;

    use super::*;

    fn now() -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs() as i64
    }

    fn issuer(seed: u8) -> SigningKey {
        SigningKey::from_random(&[seed; 32])
    }

    /// A relay that accepts tokens of issuers made from these seeds.
    fn accepting(issuers: &[u8], settings: &str) -> (tempfile::TempDir, Relay) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token-keys");
        let keys: String =
            issuers.iter().map(|&seed| format!("{} # {seed}\n", issuer(seed).public())).collect();
        fs::write(&file, keys).expect("a file");
        let relay = Relay::start(&format!("tokens.key_file = '{}'\n{settings}", file.display()));
        (folder, relay)
    }

    /// What a token of the issuer 1 says for the client made from `seed`.
    fn claims(seed: u8) -> Claims {
        let client = private(seed).public();
        Claims { client, relay: None, expires: now() + 3_600, not_before: None, issued: Some(now()) }
    }

    fn token(claims: Claims) -> Token {
        issuer(1).issue(&claims).expect("a token")
    }

    async fn node_key(relay: &Relay) -> NodePublic {
        relay.dialer().greet().await.expect("a relay").relay
    }

    async fn told(dialer: Dialer, seed: u8) -> String {
        match dialer.connect(&private(seed)).await {
            Err(DialError::Login(LoginError::RefusedBecause(text))) => text,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_with_a_token_for_its_key_logs_in() {
        let (_folder, relay) = accepting(&[1, 2], "");
        let own = node_key(&relay).await;
        let for_this_relay = Claims { relay: Some(own), ..claims(1) };
        let present = |token: Token| relay.dialer().with_token(token);
        let mut sender = present(token(for_this_relay)).connect(&private(1)).await.expect("a login");
        // Of the next issuer, and without a fast start.
        let next = present(issuer(2).issue(&claims(2)).expect("a token")).without_fast_start();
        let mut receiver = next.connect(&private(2)).await.expect("a login");
        sender.send(private(2).public(), b"hello").await.expect("the relay reads");
        assert_eq!(packet(&mut receiver).await, (private(1).public(), b"hello".to_vec()));
        assert_eq!(relay.metric("towpath_admitted_total{policy=\"tokens\"}"), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_token_that_is_no_good_is_refused_with_a_reason_of_its_own() {
        let (_folder, relay) = accepting(&[1], "");
        let own = node_key(&relay).await;
        let for_other = Claims { client: private(99).public(), ..claims(1) };
        let faults = [
            (Some("v4.public.AAAA".parse().expect("a text")), TokenError::Malformed),
            (Some(issuer(2).issue(&claims(2)).expect("a token")), TokenError::Forged),
            (Some(token(Claims { expires: now(), ..claims(3) })), TokenError::Expired),
            (Some(token(Claims { not_before: Some(now() + 600), ..claims(4) })), TokenError::NotYetValid),
            (Some(token(for_other)), TokenError::OtherKey),
            (Some(token(Claims { relay: Some(private(7).public()), ..claims(6) })), TokenError::OtherRelay),
            (None, TokenError::Missing),
        ];
        for (seed, (token, fault)) in (1..).zip(faults) {
            let dialer = token.into_iter().fold(relay.dialer(), Dialer::with_token);
            assert_eq!(told(dialer, seed).await, format!("{fault} ({})", fault.label()));
            relay.wait("it is counted", |relay| refused(relay, fault.label()) == 1);
        }
        assert_eq!(TokenError::ALL.map(|fault| refused(&relay, fault.label())), [1; TokenError::ALL.len()]);
        let good = relay.dialer().with_token(token(Claims { relay: Some(own), ..claims(20) }));
        good.connect(&private(20)).await.expect("a login");
    }

    /// The token of a client goes over the wire in its login alone, and that is bound to its connection.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_login_with_a_token_that_is_repeated_is_refused_before_the_token_is_looked_at() {
        let (_folder, relay) = accepting(&[1], "");
        let config = Arc::new(trusting_anyone());
        let (mut stream, key) = login::upgraded(relay.tls(), &config).await;
        let info = ClientInfo {
            version: 2,
            token: Some(token(claims(1))),
            binding: Some(towpath_wire::derp::binding::Binding::from_bytes([5; 32])),
            ..ClientInfo::default()
        };
        let mut frame = Vec::new();
        info.seal(&private(1), &key, &[3; 24], &mut frame);
        stream.write_all(&frame).await.expect("the relay reads");
        stream.flush().await.expect("the relay reads");
        let _ = stream.read_to_end(&mut Vec::new()).await;
        relay.wait("it is counted", |relay| refused(relay, "bound_elsewhere") == 1);
        let honest = relay.dialer().with_token(token(claims(1)));
        honest.connect(&private(1)).await.expect("the key is not held back for it");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_is_closed_when_its_token_expires() {
        let (_folder, relay) = accepting(&[1], "confirm.interval = '5s'\nconfirm.grace = '5s'");
        let short = relay.dialer().with_token(token(Claims { expires: now() + 4, ..claims(1) }));
        let long = relay.dialer().with_token(token(claims(2)));
        let _short = short.connect(&private(1)).await.expect("a login");
        let mut long = long.connect(&private(2)).await.expect("a login");
        relay.wait("it is closed", |relay| relay.metric("towpath_closed_total{reason=\"revoked\"}") == 1);
        relay.wait("the other stays", |relay| relay.metric("derp_current_connections") == 1);
        assert!(is_open(&mut long).await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_token_that_is_not_presented_matters_only_where_nothing_else_admits() {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("allowed");
        fs::write(&list, format!("{}\n{}\n", private(1).public(), private(2).public())).expect("a file");
        let allowed = format!("allow_list.file = '{}'", list.display());
        let (_either, relay) = accepting(&[1], &allowed);
        relay.client(1).await;
        let sentence = "this relay does not admit the node key of this device; ask its operator";
        assert_eq!(told(relay.dialer(), 3).await, sentence);
        let presenting = relay.dialer().with_token(token(claims(9)));
        assert_eq!(told(presenting, 4).await, "the token is for another node key (token_other_key)");

        let both = format!("{allowed}\nrequire = ['allow_list', 'tokens']");
        let (_both, relay) = accepting(&[1], &both);
        assert_eq!(told(relay.dialer(), 1).await, "the client presents no token (token_missing)");
        let unlisted = relay.dialer().with_token(token(claims(3)));
        assert_eq!(told(unlisted, 3).await, sentence);
        let listed = relay.dialer().with_token(token(claims(2)));
        listed.connect(&private(2)).await.expect("a login");
        assert_eq!(relay.metric("towpath_admitted_total{policy=\"require\"}"), 1);
    }
}

/// Two relays of a region ask the same list. Keys that leave it are gone from both: closed where they are connected, withdrawn
/// over the link, and let in by neither.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_revoked_are_gone_behind_a_link_as_well() {
    const REVOKED: u8 = 20;
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("allowed");
    let write = |seeds: std::ops::RangeInclusive<u8>| {
        let keys: String = seeds.map(|seed| format!("{}\n", private(seed).public())).collect();
        let draft = folder.path().join("draft");
        fs::write(&draft, keys).expect("a file");
        fs::rename(draft, &list).expect("a new name");
    };
    write(1..=REVOKED + 1);
    let admission = format!("allow_list.file = '{}'", list.display());
    let (far_files, near_files) = (MeshFiles::new(0xf1), MeshFiles::new(0xf2));
    let far = Relay::start(&format!("{admission}\n{}", far_files.settings(&[])));
    let near = Relay::start(&format!("{admission}\n{}", near_files.settings(&[far_files.peer(far.tls())])));
    let mut clients = Vec::new();
    for seed in 1..=REVOKED {
        clients.push(far.client(seed).await);
    }
    let (_, mut sender) = near.client(REVOKED + 1).await;
    near.wait("the keys are announced", |near| near.metric("derp_clients_remote") == u64::from(REVOKED));
    for (to, client) in &mut clients {
        sender.send(*to, b"over the link").await.expect("the relay reads");
        assert_eq!(packet(client).await.1, b"over the link");
    }
    write(REVOKED + 1..=REVOKED + 1);
    near.wait("the keys are gone", |near| near.metric("derp_clients_remote") == 0);
    assert_eq!(far.metric("towpath_closed_total{reason=\"revoked\"}"), u64::from(REVOKED));
    for relay in [&far, &near] {
        relay.wait("the list is replaced", |relay| relay.metric("towpath_allow_list_keys") == 1);
        assert!(relay.refuses(1).await);
    }
    assert!(is_open(&mut sender).await, "the key that stays is not disturbed");
}

/// Whether a client is connected.
async fn is_open(client: &mut Client) -> bool {
    client.ping([1; 8]).await.is_ok()
        && loop {
            match client.recv().await {
                Ok(Event::Pong(_)) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        }
}
