//! When an answer changes the path to a peer, and when the lack of one does.

use towpath_disco::Event;
use towpath_wire::disco::message::{Message, TxId};

use super::lab::{Client, HOME, Lab, address, bare, key, targets};

const HERE: &str = "198.51.100.2:41641";
const THERE: &str = "198.51.100.2:7";

/// The client says that it can be reached at an address, too, and answers there after so many milliseconds.
fn name(lab: &mut Lab, named: &str, rtt: u64) {
    lab.answer(named, rtt);
    let call = lab.clients[0].call_me_maybe(&[HERE, named]);
    lab.hear_over(HOME, key(2), &call);
    lab.stream(0, 600);
}

#[test]
fn an_answer_takes_the_path_if_it_is_faster_or_if_the_path_is_silent() {
    let mut lab = Lab::direct(&[HERE]);
    name(&mut lab, THERE, 38);
    assert_eq!(lab.direct_to(0), Some(address(HERE)), "hardly faster");
    name(&mut lab, THERE, 300);
    assert_eq!(lab.direct_to(0), Some(address(HERE)), "slower");
    lab.silence(HERE);
    name(&mut lab, THERE, 300);
    assert_eq!(lab.direct_to(0), Some(address(THERE)), "the only one that answers");
    name(&mut lab, HERE, 40);
    assert_eq!(lab.direct_to(0), Some(address(HERE)), "much faster");
    let changes = [THERE, HERE].map(|place| Event::Direct { peer: key(2), address: address(place) });
    let events: Vec<_> = lab.events();
    assert!(changes.iter().all(|change| events.contains(change)), "{events:?}");
}

#[test]
fn an_answer_over_the_relay_says_nothing_of_a_path() {
    let mut lab = Lab::direct(&[HERE]);
    lab.silence(HERE);
    for _ in 0..50 {
        lab.send(0, 100);
        for (_, packet) in lab.pass(20) {
            let Some(Message::Ping(ping)) = lab.clients[0].open(&packet) else { continue };
            let pong = lab.clients[0].seal(&Message::Pong { tx: ping.tx, source: address(HERE) });
            lab.hear_over(HOME, key(2), &pong);
        }
    }
    assert!(lab.send(0, 100).relay.is_some(), "no answer has come from the address");
}

#[test]
fn a_candidate_that_does_not_answer_is_no_reason_to_leave_the_path() {
    let mut lab = Lab::direct(&[HERE]);
    let call = lab.clients[0].call_me_maybe(&[THERE]);
    lab.hear_over(HOME, key(2), &call);
    let sent = targets(&lab.pass(1000));
    assert!(!sent.is_empty() && !sent.contains(&address(HERE)), "the path is in no doubt");
    for _ in 0..3 {
        lab.hear_over(HOME, key(2), &call);
        assert!(!lab.stream(0, 6000), "the path answers, so that no data goes over the relay");
    }
    assert_eq!((lab.direct_to(0), lab.events()), (Some(address(HERE)), vec![]));
}

#[test]
fn answers_that_come_late_or_from_strangers_say_nothing() {
    let mut lab = Lab::direct(&[HERE]);
    lab.silence(HERE);
    lab.clients.push(Client::new(3, 8, &lab.node));
    lab.set(1, &[]);
    lab.send(0, 100);
    let probes: Vec<_> =
        lab.pass(0).into_iter().filter_map(|(_, packet)| lab.clients[0].open(&packet)).collect();
    let Some(Message::Ping(ping)) = probes.first() else { panic!("{probes:?}") };
    let pong = |tx| Message::Pong { tx, source: address(HERE) };
    let packets = [
        lab.clients[1].seal(&pong(ping.tx)),
        lab.clients[0].seal(&pong(TxId([0; 12]))),
        Client::new(9, 9, &lab.node).seal(&pong(ping.tx)),
    ];
    for packet in &packets {
        lab.hear(HERE, packet);
    }
    assert!(lab.stream(0, 220), "the path is suspected as if none had come");
    lab.stream(0, 6000);
    let late = lab.clients[0].seal(&pong(ping.tx));
    lab.hear(HERE, &late);
    assert_eq!(lab.direct_to(0), None);
}

/// What upstream has a debug switch for.
#[test]
fn a_node_that_is_told_of_no_address_sends_nothing_but_over_the_relay() {
    let mut lab = Lab::new([(2, 7)]);
    lab.node = bare(&[address("203.0.113.1:3478"), address("203.0.113.2:3478")]);
    lab.clients = vec![Client::new(2, 7, &lab.node)];
    lab.set(0, &[HERE, "[2001:db8::2]:41641"]);
    let call = lab.clients[0].call_me_maybe(&[THERE]);
    let mut all = Vec::new();
    for _ in 0..100 {
        assert_eq!(lab.send(0, 1400).relay, Some(HOME));
        lab.hear_over(HOME, key(2), &call);
        all.append(&mut lab.pass(1000));
    }
    assert_eq!(targets(&all), []);
    assert!(!all.is_empty(), "it calls the peer");
}
