//! Peers that share a disco key, as the nodes of one host do, and peers that claim the key or the address of another.

use super::lab::{Client, DATA, HOME, Lab, address, key, targets};

const HERE: &str = "198.51.100.2:41641";
const THERE: &str = "198.51.100.3:41641";

#[test]
fn a_ping_is_of_the_peer_that_it_names_and_else_of_the_only_one_with_its_disco_key() {
    let mut lab = Lab::new([(2, 7), (3, 7), (4, 8)]);
    (0..3).for_each(|client| lab.set(client, &[]));
    for (number, (client, named, owner)) in [
        (0, Some(2), Some(2)),
        (0, Some(3), Some(3)),
        (0, None, None),
        (0, Some(4), None),
        (2, None, Some(4)),
        (2, Some(2), Some(4)),
    ]
    .into_iter()
    .enumerate()
    {
        let from = format!("198.51.100.9:{}", 1000 + number);
        let ping = lab.clients[client].ping(named.map(key));
        assert_eq!(lab.hear(&from, &ping), None);
        let sent = targets(&lab.sent());
        // The first packet is the pong. A ping that may be of either says of none where it is.
        assert!(sent.iter().all(|target| *target == address(&from)), "{sent:?}");
        assert_eq!(sent.len(), if owner.is_some() { 2 } else { 1 }, "case {number}");
        assert_eq!(lab.hear(&from, DATA), owner.map(key), "case {number}");
    }
}

#[test]
fn a_pong_is_of_the_peer_that_was_probed_whichever_others_share_its_disco_key() {
    let mut lab = Lab::new([(2, 7), (3, 7)]);
    for (client, place) in [HERE, THERE].into_iter().enumerate() {
        lab.set(client, &[place]);
        lab.answer(place, 40);
        lab.send(client, 100);
    }
    lab.pass(1000);
    assert_eq!([0, 1].map(|client| lab.direct_to(client)), [HERE, THERE].map(|place| Some(address(place))));
    assert_eq!([HERE, THERE].map(|place| lab.hear(place, DATA)), [2, 3].map(|number| Some(key(number))));
}

#[test]
fn a_disco_key_is_known_for_as_long_as_one_peer_has_it() {
    let mut lab = Lab::new([(2, 7), (3, 7)]);
    (0..2).for_each(|client| lab.set(client, &[]));
    let ping = lab.clients[0].ping(None);
    lab.node.remove_peer(&key(2));
    lab.hear(HERE, &ping);
    assert!(!lab.pass(1000).is_empty());
    assert_eq!(lab.hear(HERE, DATA), Some(key(3)));
    lab.node.remove_peer(&key(3));
    lab.hear(HERE, &ping);
    assert!(lab.pass(1000).is_empty());
    assert_eq!(lab.hear(HERE, DATA), None);
}

#[test]
fn a_host_that_has_got_another_node_key_is_direct_by_it() {
    let mut lab = Lab::direct(&[HERE]);
    lab.clients.push(Client::new(3, 7, &lab.node));
    lab.set(1, &[HERE]);
    lab.node.remove_peer(&key(2));
    lab.send(1, 100);
    lab.pass(1000);
    assert_eq!((lab.direct_to(0), lab.direct_to(1)), (None, Some(address(HERE))));
    assert_eq!(lab.hear(HERE, DATA), Some(key(3)));
}

/// The disco key of a peer is in clear in its packets. One that claims it is answered in its name by the peer that has it.
#[test]
fn a_peer_that_claims_the_disco_key_of_another_does_not_get_its_data() {
    for is_claimed_first in [false, true] {
        let mut lab = Lab::new([(2, 7), (3, 7)]);
        lab.answer(HERE, 40);
        let claim = |lab: &mut Lab| {
            lab.node.set_peer(&lab.clients[1].unknown(), lab.now);
            let hello = lab.clients[1].hello(1, None, &[HERE]);
            lab.hear_over(HOME, key(3), &hello);
            lab.pass(1000);
            assert_eq!(lab.direct_to(1), Some(address(HERE)), "the owner of the key has answered");
        };
        if is_claimed_first {
            claim(&mut lab);
        }
        lab.set(0, &[HERE]);
        lab.send(0, 100);
        lab.pass(1000);
        assert_eq!(lab.direct_to(0), Some(address(HERE)));
        let ping = lab.clients[0].ping(Some(key(2)));
        lab.hear(HERE, &ping);
        if !is_claimed_first {
            claim(&mut lab);
        }
        lab.stream(1, 1000);
        assert_eq!(lab.hear(HERE, DATA), Some(key(2)), "{is_claimed_first}");
    }
}

/// The source of a ping may be forged.
#[test]
fn a_ping_takes_no_address_at_which_another_peer_is_direct() {
    let mut lab = Lab::direct(&[HERE]);
    lab.clients.push(Client::new(3, 8, &lab.node));
    lab.set(1, &[]);
    let ping = lab.clients[1].ping(Some(key(3)));
    lab.silence(HERE);
    lab.hear(HERE, &ping);
    assert_eq!(lab.hear(HERE, DATA), Some(key(2)));
    // The peer has gone, and another one has got its address.
    lab.stream(0, 1000);
    lab.hear(HERE, &ping);
    assert_eq!(lab.hear(HERE, DATA), Some(key(3)));
}
