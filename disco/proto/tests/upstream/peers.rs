//! What stays when the peers of a node are set anew, and what goes.

use towpath_disco::datagram::{Region, RelayEvent, Route, Transmit};
use towpath_disco::{Event, PeerConfig};

use super::lab::{Client, DATA, HOME, Lab, address, key, targets};

const HERE: &str = "198.51.100.2:41641";
const THERE: &str = "198.51.100.2:7";

fn path(text: &str) -> Route {
    Route { direct: Some(address(text)), relay: None, standby: None }
}

#[test]
fn a_peer_that_is_set_again_keeps_its_path() {
    let mut lab = Lab::direct(&[HERE]);
    for addresses in [&[HERE][..], &[HERE, THERE], &[THERE], &[]] {
        lab.set(0, addresses);
        assert_eq!(lab.send(0, 100), path(HERE));
        assert!(!lab.stream(0, 1000));
        assert_eq!(lab.hear(HERE, DATA), Some(key(2)));
    }
    let region = Some(Region(5));
    lab.node.set_peer(&PeerConfig { region, ..lab.clients[0].config(&[]) }, lab.now);
    assert_eq!((lab.send(0, 100), lab.events()), (path(HERE), vec![]));
    lab.silence(HERE);
    lab.stream(0, 1000);
    assert_eq!(lab.send(0, 100), Route { relay: region, ..path(HERE) });
}

#[test]
fn a_peer_that_is_set_again_without_a_control_plane_keeps_what_it_has_said() {
    let mut lab = Lab::new([(2, 7)]);
    let unknown = lab.clients[0].unknown();
    lab.node.set_peer(&unknown, lab.now);
    lab.answer(HERE, 40);
    let hello = lab.clients[0].hello(1, None, &[HERE]);
    lab.hear_over(Region(7), key(2), &hello);
    lab.pass(1000);
    lab.node.set_peer(&unknown, lab.now);
    assert_eq!(lab.send(0, 100), path(HERE));
    assert!(!lab.stream(0, 1000));
    // It is where it was heard, and its hello is old.
    assert_eq!(lab.send(0, 1400).relay, Some(Region(7)));
    lab.pass(1000);
    lab.hear_over(Region(7), key(2), &hello);
    assert!(lab.pass(1000).iter().all(|(transmit, _)| matches!(transmit, Transmit::Udp { .. })));
}

#[test]
fn addresses_that_are_named_no_more_are_not_probed_unless_the_peer_was_heard_there() {
    let places = ["203.0.113.1:1", "203.0.113.2:1", "203.0.113.3:1"];
    let [named, called, heard] = places;
    let mut lab = Lab::new([(2, 7)]);
    lab.set(0, &[named]);
    let [both, one] = [&[called, named][..], &[HERE]].map(|all| lab.clients[0].call_me_maybe(all));
    let ping = lab.clients[0].ping(Some(key(2)));
    lab.hear_over(HOME, key(2), &both);
    lab.hear(heard, &ping);
    let probed = |lab: &mut Lab| {
        lab.pass(61_000);
        lab.send(0, 100);
        let sent = targets(&lab.pass(1000));
        places.map(|place| sent.contains(&address(place)))
    };
    assert_eq!(probed(&mut lab), [true, true, true]);
    // A later CallMeMaybe takes back what an earlier one has named, and not what the control plane names.
    lab.hear_over(HOME, key(2), &one);
    assert_eq!(probed(&mut lab), [true, false, true]);
    lab.set(0, &[]);
    assert_eq!(probed(&mut lab), [false, false, true]);
    // The control plane takes back what it has named, and not what the peer names.
    lab.set(0, &[named]);
    lab.hear_over(HOME, key(2), &both);
    lab.set(0, &[]);
    assert_eq!(probed(&mut lab), [true, true, true]);
}

#[test]
fn a_peer_of_which_something_new_is_known_is_tried_again_at_once() {
    let mut lab = Lab::new([(2, 7)]);
    let before = "203.0.113.1:1";
    lab.set(0, &[before]);
    lab.stream(0, 20_000);
    lab.answer(HERE, 40);
    lab.set(0, &[before, HERE]);
    lab.stream(0, 200);
    assert_eq!(lab.direct_to(0), Some(address(HERE)));
}

#[test]
fn data_goes_over_both_ways_until_a_peer_with_another_disco_key_has_answered() {
    let mut lab = Lab::direct(&[HERE]);
    let old = lab.clients[0].ping(Some(key(2)));
    lab.clients[0] = Client::new(2, 9, &lab.node);
    lab.set(0, &[HERE]);
    assert_eq!(lab.send(0, 100), Route { relay: Some(HOME), ..path(HERE) });
    assert_eq!(lab.hear(HERE, DATA), Some(key(2)), "its data is still known");
    lab.pass(200);
    assert_eq!(lab.send(0, 100), path(HERE));
    lab.pass(200);
    lab.hear(HERE, &old);
    assert!(lab.sent().is_empty(), "the old key is not known any more");
    // The new one is not where the old one was.
    lab.clients[0] = Client::new(2, 10, &lab.node);
    lab.silence(HERE);
    lab.set(0, &[HERE]);
    lab.stream(0, 4000);
    assert_eq!(lab.send(0, 100), Route { direct: None, relay: Some(HOME), standby: None });
    assert!(lab.events().contains(&Event::Relayed { peer: key(2) }));
}

#[test]
fn a_peer_without_a_control_plane_that_has_started_anew_is_probed_with_its_new_key() {
    let mut lab = Lab::new([(2, 7)]);
    lab.node.set_peer(&lab.clients[0].unknown(), lab.now);
    lab.answer(HERE, 40);
    // Returns the answer.
    let greet = |lab: &mut Lab, counter: u32, echo: Option<[u8; 12]>| {
        let hello = lab.clients[0].hello(counter, echo, &[HERE]);
        lab.hear_over(HOME, key(2), &hello);
        let sent = lab.pass(0);
        sent.iter().find_map(|(_, packet)| lab.clients[0].open_hello(packet)).unwrap()
    };
    let answer = greet(&mut lab, 1, None);
    assert!(!greet(&mut lab, 2, Some(answer.challenge)).wants_echo);
    lab.pass(1000);
    assert_eq!(lab.send(0, 100), path(HERE));
    lab.clients[0] = Client::new(2, 9, &lab.node);
    let answer = greet(&mut lab, 3, None);
    assert_eq!(lab.send(0, 100), Route { relay: Some(HOME), ..path(HERE) }, "the peer may have started anew");
    assert!(answer.wants_echo, "or the hello is a recording");
    greet(&mut lab, 4, Some(answer.challenge));
    assert_eq!(lab.send(0, 100), Route { relay: Some(HOME), ..path(HERE) });
    lab.pass(200);
    assert_eq!(lab.send(0, 100), path(HERE));
}

#[test]
fn a_peer_whose_disco_key_is_taken_away_is_reached_over_the_relay() {
    let mut lab = Lab::direct(&[HERE]);
    lab.node.set_peer(&PeerConfig { disco: None, ..lab.clients[0].config(&[HERE]) }, lab.now);
    assert_eq!(lab.events(), [Event::Relayed { peer: key(2) }]);
    for _ in 0..100 {
        assert_eq!(lab.send(0, 100), Route { direct: None, relay: Some(HOME), standby: None });
        assert_eq!(targets(&lab.pass(100)), []);
    }
}

#[test]
fn nothing_is_sent_to_a_peer_that_is_removed_and_nothing_of_it_is_heard() {
    let mut lab = Lab::direct(&[HERE]);
    let call = lab.clients[0].call_me_maybe(&[THERE]);
    let ping = lab.clients[0].ping(Some(key(2)));
    lab.hear_over(HOME, key(2), &call);
    lab.sent();
    lab.node.remove_peer(&key(2));
    assert!(lab.pass(60_000).is_empty());
    lab.hear(HERE, &ping);
    lab.hear_over(HOME, key(2), &call);
    lab.hear_over(HOME, key(2), &ping);
    lab.node.handle_relay(lab.now, RelayEvent::PeerGone { region: HOME, peer: key(2) });
    assert_eq!(lab.hear(HERE, DATA), None);
    assert_eq!(lab.hear_over(HOME, key(2), DATA), None);
    assert_eq!(lab.send(0, 100), Route::default());
    assert!(lab.sent().is_empty());
    assert!(lab.node.why(&key(2), lab.now).is_none());
}

/// Peers are set, changed and removed in an order that is drawn, while they send and are sent to.
#[test]
fn peers_that_come_and_go_leave_nothing_behind() {
    let mut lab = Lab::new([(2, 7), (3, 7), (4, 8), (5, 9)]);
    lab.answer(HERE, 10);
    lab.answer(THERE, 20);
    let mut drawn = 1u32;
    let mut draw = |below: u32| {
        drawn = drawn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (drawn >> 16) % below
    };
    for _ in 0..3000 {
        let client = draw(4) as usize;
        let from = [HERE, THERE][draw(2) as usize];
        match draw(6) {
            0 => lab.set(client, &[from]),
            1 => lab.set(client, &[HERE, THERE]),
            2 => lab.node.set_peer(&lab.clients[client].unknown(), lab.now),
            3 => lab.node.remove_peer(&lab.clients[client].key()),
            4 => {
                let ping = lab.clients[client].ping(None);
                lab.hear(from, &ping);
            }
            _ => _ = lab.send(client, 100),
        }
        lab.pass(u64::from(draw(200)));
    }
    (2..=5).for_each(|number| lab.node.remove_peer(&key(number)));
    // The node keeps its own addresses fresh for a while, and looks after the link to its relay for as long as that is up.
    lab.node.handle_relay(lab.now, RelayEvent::Down(HOME));
    lab.pass(120_000);
    assert_eq!(lab.node.poll_timeout(), None);
    assert_eq!(lab.hear(HERE, DATA), None);
}

#[test]
fn a_peer_that_was_not_in_its_region_is_looked_for_there_when_it_is_set_again() {
    let mut lab = Lab::new([(2, 7)]);
    let config = PeerConfig { region: Some(Region(5)), ..lab.clients[0].unknown() };
    lab.node.set_peer(&config, lab.now);
    assert_eq!(lab.send(0, 100).relay, Some(Region(5)));
    lab.node.handle_relay(lab.now, RelayEvent::PeerGone { region: Region(5), peer: key(2) });
    assert_eq!(lab.send(0, 100).relay, Some(HOME));
    lab.node.set_peer(&config, lab.now);
    assert_eq!(lab.send(0, 100).relay, Some(Region(5)));
}

/// The connection to the home is the one that a peer keeps.
#[test]
fn data_goes_to_the_home_of_a_peer_and_to_where_it_was_heard_if_no_home_is_known() {
    let mut lab = Lab::new([(2, 7), (3, 8)]);
    for (client, region) in [(0, None), (1, Some(Region(5)))] {
        let config = PeerConfig { region, ..lab.clients[client].config(&[]) };
        lab.node.set_peer(&config, lab.now);
        lab.hear_over(Region(7), config.key, DATA);
    }
    let over = |lab: &mut Lab, client| lab.send(client, 100).relay;
    assert_eq!([0, 1].map(|client| over(&mut lab, client)), [Some(Region(7)), Some(Region(5))]);
    for peer in [key(2), key(3)] {
        lab.node.handle_relay(lab.now, RelayEvent::PeerGone { region: Region(7), peer });
    }
    assert_eq!([0, 1].map(|client| over(&mut lab, client)), [Some(HOME), Some(Region(5))]);
}
