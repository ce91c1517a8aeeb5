//! What becomes of the path to a peer, and of the packets meanwhile.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use towpath::{Packets, Path, SendError};
use towpath_live::LocalRelay;
use towpath_sim::{Action, Class};

use crate::support::{Lab, PATIENCE, Seat, numbers, packet, public};

/// Sends packets with the numbers of `range`, one each millisecond.
async fn send(seat: &Seat, peer: u8, range: std::ops::Range<u32>) {
    for number in range {
        seat.endpoint.send(&public(peer), &[packet(number)]).await.expect("it is sent");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Sends packets from the first to the second until both are direct, and some more. Returns how many.
async fn until_direct(seats: &[Seat; 2]) -> u32 {
    let watches =
        [(0, 2), (1, 1)].map(|(seat, peer)| seats[seat].endpoint.watch_path(&public(peer)).expect("a peer"));
    let mut sent = 0;
    let are_direct = || watches.iter().all(|watch| watch.path().is_direct());
    let sending = async {
        while !are_direct() {
            send(&seats[0], 2, sent..sent + 10).await;
            sent += 10;
        }
        send(&seats[0], 2, sent..sent + 200).await;
        sent += 200;
    };
    timeout(PATIENCE, sending).await.expect("the pair becomes direct");
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_become_direct_and_each_packet_comes_once() {
    for (seed, classes) in [(1, [Class::P, Class::P]), (2, [Class::S, Class::A]), (3, [Class::O, Class::R])] {
        let lab = Lab::new(seed).await;
        let seats = lab.pair(classes).await;
        let receiving = numbers(&seats[1].endpoint, usize::MAX);
        let (sent, _) = (until_direct(&seats).await, drop(receiving));
        let mut got = numbers(&seats[1].endpoint, sent as usize).await;
        got.sort_unstable();
        assert_eq!(got, (0..sent).collect::<Vec<_>>(), "{classes:?}");
        let why = seats[0].endpoint.why(&public(2)).expect("a peer");
        assert!(why.direct.is_some(), "{why}");
        let status = seats[0].endpoint.status();
        assert_eq!((status.home, status.standby), (Some(1), Some(2)));
        assert!(status.relays.iter().all(|relay| relay.up), "{status:?}");
        assert!(matches!(status.peers[0].path, Path::Direct { .. }), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_of_a_pair_without_a_direct_path_go_over_the_relay() {
    let lab = Lab::new(4).await;
    let seats = lab.pair([Class::X, Class::P]).await;
    send(&seats[0], 2, 0..100).await;
    send(&seats[1], 1, 0..100).await;
    for seat in &seats {
        assert_eq!(numbers(&seat.endpoint, 100).await, (0..100).collect::<Vec<_>>());
        let stats = seat.endpoint.stats();
        assert_eq!((stats.received[0].packets, stats.received[1].packets), (100, 0), "{stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_whose_relay_is_killed_goes_on_over_the_standby() {
    let mut lab = Lab::new(5).await;
    let seats = lab.pair([Class::S, Class::S]).await;
    send(&seats[0], 2, 0..50).await;
    assert_eq!(numbers(&seats[1].endpoint, 50).await.len(), 50);
    lab.relays[0].kill().await;
    let sending = send(&seats[0], 2, 1000..u32::MAX);
    let mut packets = Packets::new();
    let receiving = timeout(PATIENCE, seats[1].endpoint.recv(&mut packets));
    tokio::select! {
        () = sending => {}
        received = receiving => received.expect("packets come over the standby").expect("it is open"),
    }
    let status = seats[1].endpoint.status();
    assert!(
        status.relays.iter().any(|relay| relay.region == 1 && !relay.up && relay.trouble.is_some()),
        "{status:?}"
    );
}

/// Neither end of the links hears of their end, and one of the endpoints sends nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_do_not_answer_are_dialled_anew_by_one_that_only_receives_as_well() {
    let lab = Lab::new(9).await;
    let seats = lab.pair([Class::S, Class::S]).await;
    send(&seats[0], 2, 0..50).await;
    assert_eq!(numbers(&seats[1].endpoint, 50).await.len(), 50);
    lab.relays.iter().for_each(LocalRelay::forget_connections);
    let sending = send(&seats[0], 2, 1000..u32::MAX);
    let mut packets = Packets::new();
    let receiving = async {
        // What was on its way comes first.
        while timeout(Duration::from_millis(100), seats[1].endpoint.recv(&mut packets)).await.is_ok() {}
        seats[1].endpoint.recv(&mut packets).await
    };
    tokio::select! {
        () = sending => {}
        received = timeout(PATIENCE, receiving) => received.expect("packets come over other links").expect("it is open"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_path_that_breaks_is_left_for_the_relay() {
    let lab = Lab::new(6).await;
    let seats = lab.pair([Class::P, Class::P]).await;
    until_direct(&seats).await;
    lab.internet.act(Action::Roam { host: seats[1].socket.host(), places: vec![], gap: Duration::ZERO });
    let mut watch = seats[0].endpoint.watch_path(&public(2)).expect("a peer");
    let left = async {
        while watch.path() != Path::Relayed {
            send(&seats[0], 2, 9000..9001).await;
        }
    };
    timeout(PATIENCE, left).await.expect("the path is given up");
    let _ = timeout(Duration::ZERO, watch.changed()).await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused() {
    let lab = Lab::new(7).await;
    let seat = lab.seat(0, Class::O, 1, 2).await;
    let send = async |peer, packet: &[u8]| seat.endpoint.send(&public(peer), &[packet]).await;
    assert_eq!(send(3, b"to a stranger").await, Err(SendError::UnknownPeer(public(3))));
    assert_eq!(
        send(2, b"TS\xf0\x9f\x92\xac: begins like disco, and is longer than that").await,
        Err(SendError::Mistakable)
    );
    seat.endpoint.close().await;
    assert_eq!(send(2, b"too late").await, Err(SendError::Closed));
    assert!(seat.endpoint.recv(&mut Packets::new()).await.is_err());
}
