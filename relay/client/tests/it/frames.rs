//! What goes over a connection after its login.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use towpath_relay_client::{Client, Event, RecvError, SendError, TlsVersions};
use towpath_wire::derp::app_name::AppName;
use towpath_wire::derp::frame::{FrameType, GoneReason, Header, ServerFrame};
use towpath_wire::derp::mesh::PresentFlags;
use towpath_wire::key::NodePublic;

use crate::support::{Identity, TlsStream, client_key, dialer, echo, log_in, relay_key, tls_relay};

const PEER: NodePublic = NodePublic::from_bytes([7; 32]);

async fn connect(identity: &Identity, address: SocketAddr) -> Client {
    dialer(address, &identity.pin(), TlsVersions::Both).connect(&client_key()).await.unwrap()
}

/// What a watcher is told of a peer that states an app name.
fn named() -> (Option<SocketAddr>, PresentFlags, AppName) {
    let app_name = AppName::from_bytes(b"some app").expect("a name");
    (Some(([192, 0, 2, 1], 41641).into()), PresentFlags::NOT_IDEAL, app_name)
}

fn identity() -> Identity {
    Identity::for_test().with_meta(relay_key().public())
}

#[tokio::test]
async fn every_frame_becomes_an_event_and_pings_are_answered() {
    let identity = identity();
    let (told, answer) = oneshot::channel();
    let address = tls_relay(&identity, async |mut stream: TlsStream| {
        log_in(&mut stream, &[]).await;
        let mut frames = Vec::new();
        ServerFrame::KeepAlive.encode(&mut frames);
        frames.extend_from_slice(&Header { kind: 0x77, len: 3 }.encode());
        frames.extend_from_slice(b"new");
        ServerFrame::ServerKey(relay_key().public()).encode(&mut frames);
        ServerFrame::Ping(*b"01234567").encode(&mut frames);
        ServerFrame::PeerGone { peer: PEER, reason: GoneReason::NotHere }.encode(&mut frames);
        let (address, flags, app_name) = named();
        ServerFrame::PeerPresent { peer: PEER, address, flags, app_name }.encode(&mut frames);
        ServerFrame::Health("not well").encode(&mut frames);
        ServerFrame::Restarting { reconnect_in_ms: 250, try_for_ms: 60_000 }.encode(&mut frames);
        // In pieces, so that no frame comes whole.
        for piece in frames.chunks(3) {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut pong = [0; 13];
        stream.read_exact(&mut pong).await.unwrap();
        told.send(pong).unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let mut client = connect(&identity, address).await;
    let (address, flags, app_name) = named();
    for event in [
        Event::KeepAlive,
        Event::PeerGone { peer: PEER, reason: GoneReason::NotHere },
        Event::PeerPresent { peer: PEER, address, flags, app_name },
        Event::Health("not well".to_owned()),
        Event::Restarting { reconnect_in: Duration::from_millis(250), try_for: Duration::from_secs(60) },
    ] {
        assert_eq!(client.recv().await.unwrap(), event);
    }
    assert!(matches!(client.recv().await, Err(RecvError::Closed)));
    let mut pong = Header::new(FrameType::Pong, 8).encode().to_vec();
    pong.extend_from_slice(b"01234567");
    assert_eq!(answer.await.unwrap(), &pong[..]);
}

#[tokio::test]
async fn halves_work_in_tasks_of_their_own() {
    let identity = identity();
    let (told, notes) = oneshot::channel();
    let address = tls_relay(&identity, async |mut stream: TlsStream| {
        log_in(&mut stream, &[]).await;
        told.send(echo(&mut stream).await).unwrap();
    })
    .await;
    let (sender, mut receiver) = connect(&identity, address).await.split();
    const TASKS: u8 = 4;
    const PACKETS: usize = 500;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let sender = sender.clone();
            tokio::spawn(async move {
                for _ in 0..PACKETS {
                    sender.send(PEER, &[task; 1400]).await.unwrap();
                }
            })
        })
        .collect();
    let mut received = [0; TASKS as usize];
    while received.iter().sum::<usize>() < usize::from(TASKS) * PACKETS {
        match receiver.recv().await.unwrap() {
            Event::Packet { from, packet } => {
                assert_eq!((from, packet.len()), (PEER, 1400));
                assert!(packet.iter().all(|byte| *byte == packet[0]));
                received[usize::from(packet[0])] += 1;
            }
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(received, [PACKETS; TASKS as usize]);
    for task in tasks {
        task.await.unwrap();
    }
    sender.note_preferred(true).await.unwrap();
    sender.ping(*b"pingpong").await.unwrap();
    assert_eq!(receiver.recv().await.unwrap(), Event::Pong(*b"pingpong"));
    sender.close().await.unwrap();
    assert_eq!(notes.await.unwrap(), ["preferred: true"]);
}

#[tokio::test]
async fn a_packet_that_is_too_long_is_refused_and_the_connection_kept() {
    let identity = identity();
    let address = tls_relay(&identity, async |mut stream: TlsStream| {
        log_in(&mut stream, &[]).await;
        echo(&mut stream).await;
    })
    .await;
    let mut client = connect(&identity, address).await;
    let (longest, too_long) = (vec![1; 65_536], vec![2; 65_537]);
    assert!(matches!(client.send(PEER, &too_long).await, Err(SendError::TooLong(65_537))));
    let batch = [(PEER, &b"before"[..]), (PEER, &too_long), (PEER, b"after")];
    assert!(matches!(client.send_batch(batch).await, Err(SendError::TooLong(65_537))));
    client.send(PEER, &longest).await.unwrap();
    assert_eq!(client.recv().await.unwrap(), Event::Packet { from: PEER, packet: b"before".to_vec() });
    assert_eq!(client.recv().await.unwrap(), Event::Packet { from: PEER, packet: longest });
}

#[tokio::test]
async fn sends_that_are_broken_off_leave_whole_frames() {
    let identity = identity();
    let (go, gone) = oneshot::channel::<()>();
    let address = tls_relay(&identity, async |mut stream: TlsStream| {
        log_in(&mut stream, &[]).await;
        // Reads nothing until the client is stuck.
        gone.await.unwrap();
        echo(&mut stream).await;
    })
    .await;
    let (sender, mut receiver) = connect(&identity, address).await.split();
    let packet = vec![5; 60_000];
    let mut begun = 0;
    // The socket buffers fill; from then on each send is broken off while the first one of them waits.
    for _ in 0..3 {
        while tokio::time::timeout(Duration::from_millis(50), sender.send(PEER, &packet)).await.is_ok() {
            begun += 1;
        }
    }
    go.send(()).unwrap();
    // The first that was broken off had begun, the others had not.
    let last = tokio::spawn(async move { sender.send(PEER, b"last").await });
    let mut received = 0;
    loop {
        match receiver.recv().await.unwrap() {
            Event::Packet { packet, .. } if packet == b"last" => break,
            Event::Packet { packet: other, .. } => {
                assert!(other == packet);
                received += 1;
            }
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(received, begun + 1);
    last.await.unwrap().unwrap();
}
