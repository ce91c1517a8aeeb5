//! Which messages are accepted from where (`magicsock.handleDiscoMessage`), and what is passed over.

use towpath_disco::datagram::{Region, Transmit};
use towpath_wire::disco::message::{Message, TxId};

use super::lab::{Client, DATA, HOME, Lab, address, key, targets};

const HERE: &str = "198.51.100.2:41641";
const NAMED: &str = "203.0.113.5:7";

#[test]
fn a_call_me_maybe_counts_from_the_peer_that_the_relay_names_and_with_its_disco_key() {
    let mut lab = Lab::new([(2, 7), (3, 8)]);
    (0..2).for_each(|client| lab.set(client, &[]));
    let [call, of_other] = [0, 1].map(|client| lab.clients[client].call_me_maybe(&[NAMED]));
    for (peer, packet) in [(key(2), &of_other), (key(3), &call), (key(9), &call)] {
        assert_eq!(lab.hear_over(HOME, peer, packet), None);
        assert!(lab.pass(1000).is_empty());
    }
    assert_eq!(lab.hear_over(HOME, key(2), &call), None);
    assert!(targets(&lab.pass(1000)).contains(&address(NAMED)));
}

#[test]
fn a_ping_over_a_relay_counts_with_the_disco_key_of_the_peer_that_the_relay_names() {
    let mut lab = Lab::new([(2, 7), (3, 8)]);
    (0..2).for_each(|client| lab.set(client, &[]));
    let ping = lab.clients[0].ping(Some(key(2)));
    lab.hear_over(Region(7), key(3), &ping);
    assert!(lab.pass(1000).is_empty());
    lab.hear_over(Region(7), key(2), &ping);
    let [(Transmit::Relay { region: Region(7), peer }, answer)] = &lab.pass(1000)[..] else {
        panic!("one answer over the relay")
    };
    let pong = Message::Pong { tx: TxId([2; 12]), source: address("127.3.3.40:7") };
    assert_eq!((*peer, lab.clients[0].open(answer)), (key(2), Some(pong)));
}

#[test]
fn what_no_peer_has_sealed_for_this_node_is_not_answered() {
    let mut lab = Lab::new([(2, 7)]);
    lab.set(0, &[]);
    let ping = lab.clients[0].ping(Some(key(2)));
    let of_stranger = Client::new(9, 9, &lab.node).ping(Some(key(2)));
    let forged = [&ping[..38], &of_stranger[38..]].concat();
    let damaged = [&ping[..123], &[!ping[123]]].concat();
    for packet in [&of_stranger, &forged, &damaged, &ping[..61].to_vec(), &ping[..40].to_vec()] {
        assert_eq!(lab.hear(HERE, packet), None);
        assert!(lab.pass(1000).is_empty(), "{packet:02x?}");
    }
    assert_eq!(lab.hear(HERE, &ping), None);
    assert!(targets(&lab.pass(1000)).contains(&address(HERE)));
}

/// A node has no UDP relay: what is for one is neither answered nor taken for data.
#[test]
fn messages_of_udp_relays_and_of_later_versions_are_passed_over() {
    let mut lab = Lab::direct(&[HERE]);
    assert_eq!(lab.hear(HERE, DATA), Some(key(2)));
    for kind in [4, 5, 6, 7, 8, 9, 10, 0x68, 0x80] {
        let text = [vec![kind, 0], vec![0; 160]].concat();
        let packet = lab.clients[0].seal_bytes(&text);
        for inner in [&packet[..], DATA] {
            let protocol = if inner == DATA { 0x12 } else { 0x11 };
            // With and without the bit by which control messages are marked.
            for control in [0, 0x80] {
                let geneve = [&[0, control, 0x7a, protocol, 0, 0, 1, 0][..], inner].concat();
                assert_eq!(lab.hear(HERE, &geneve), None, "type {kind}");
            }
        }
        assert_eq!(lab.hear(HERE, &packet), None, "type {kind}");
        assert_eq!(lab.hear_over(HOME, key(2), &packet), None, "type {kind}");
        assert!(lab.sent().is_empty(), "type {kind}");
    }
}
