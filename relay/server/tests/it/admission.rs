//! Who may use the relay, as clients and operators see it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towpath_relay_client::DialStep;
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::info::ClientInfo;
use towpath_wire::derp::mesh::MeshKey;
use towpath_wire::key::NodePrivate;

use crate::common::{Relay, login, packet, trusting_anyone};

fn private(seed: u8) -> NodePrivate {
    NodePrivate::from_random([seed; 32])
}

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

async fn is_refused(relay: &Relay, seed: u8) -> bool {
    match relay.dialer().connect(&private(seed)).await {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.step(), DialStep::Login, "{error}");
            true
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_allow_list_logs_in_and_another_does_not() {
    let (_folder, relay) = listed(&[1, 2], "");
    let (anna, mut sender) = relay.client(1).await;
    let (ben, mut receiver) = relay.client(2).await;
    sender.send(ben, b"hello").await.expect("the relay reads");
    assert_eq!(packet(&mut receiver).await, (anna, b"hello".to_vec()));
    assert!(is_refused(&relay, 3).await);
    relay.wait("the refusal is counted", |relay| refused(relay, "not_admitted") == 1);
    assert!(is_refused(&relay, 3).await);
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
