//! Links to relays: when a node asks them for a sign of life, and when it has them dialled anew.

use super::*;

/// A node with links to its home and to its standby, and one peer.
fn with_a_standby() -> Node {
    let mut node = Node::new(NodeConfig {
        relays: [1, 2].map(|region| RelayConfig { region: Region(region), stun: vec![] }).into(),
        home: Some(REGION),
        ..config(1)
    });
    node.handle_interfaces(at(0), &[address("192.0.2.1:41641")]);
    for region in [1, 2].map(Region) {
        node.handle_relay(at(0), RelayEvent::Up(region));
        node.handle_relay(at(0), RelayEvent::RoundTrip { region, took: Duration::from_millis(40) });
    }
    node.set_peer(&peer(private(2).public()), at(0));
    node
}

/// The pings to relays in an hour in which relays answer after 40 ms and send keep-alives so many seconds apart, if they do.
fn pings_in_an_hour(node: &mut Node, begin: u64, keep_alives: Option<u64>) -> usize {
    let mut pings = 0;
    for second in 1..=3600 {
        let now = begin + 1000 * second;
        while let Some(due) = node.poll_timeout().filter(|due| *due <= at(now)) {
            node.handle_timeout(due);
            for (transmit, packet) in sent(node) {
                let Transmit::Ping { region } = transmit else { panic!("{transmit:?}") };
                assert!(packet.is_empty());
                pings += 1;
                let took = Duration::from_millis(40);
                node.handle_relay(due + took, RelayEvent::RoundTrip { region, took });
            }
        }
        if keep_alives.is_some_and(|apart| second % apart == 0) {
            [1, 2]
                .into_iter()
                .for_each(|region| node.handle_relay(at(now), RelayEvent::Heard(Region(region))));
        }
    }
    pings
}

/// A ping is 13 bytes of DERP, and 75 in all with TLS, TCP and IPv4.
#[test]
fn a_node_at_rest_sends_relays_nothing_in_an_hour_as_long_as_they_send_keep_alives() {
    let mut node = with_a_standby();
    sent(&mut node);
    assert_eq!(pings_in_an_hour(&mut node, 0, Some(65)), 0);
    assert_eq!(pings_in_an_hour(&mut node, 3_600_000, None), 2 * 48, "each 75 s, to two relays");
    // Data that has come over a relay: for ten minutes each link is pinged every 25 s, and the keep-alives as well say that it works.
    let now = at(7_200_000);
    let received = Received::Relay { region: REGION, peer: private(2).public() };
    assert!(node.handle_packet(now, received, b"\x04data").is_some());
    assert_eq!(pings_in_an_hour(&mut node, 7_200_000, Some(60)), 2 * 20 + 1, "the standby at once");
}

fn relays(sent: &[(Transmit, Vec<u8>)]) -> Vec<Transmit> {
    let is_to_relay =
        |transmit: &Transmit| matches!(transmit, Transmit::Ping { .. } | Transmit::Redial { .. });
    sent.iter().map(|(transmit, _)| *transmit).filter(is_to_relay).collect()
}

/// Lets time pass until `end`. Returns what goes to relays themselves, and when.
fn passing(node: &mut Node, end: u64) -> Vec<(Instant, Transmit)> {
    let mut all = Vec::new();
    while let Some(due) = node.poll_timeout().filter(|due| *due <= at(end)) {
        node.handle_timeout(due);
        all.extend(relays(&sent(node)).into_iter().map(|transmit| (due, transmit)));
    }
    all
}

#[test]
fn data_over_a_relay_that_stays_away_has_all_links_asked_and_those_dialled_anew_that_do_not_answer() {
    let mut node = with_a_standby();
    sent(&mut node);
    let hear = |node: &mut Node, begin, seed| {
        let received = Received::Relay { region: REGION, peer: private(seed).public() };
        for number in 0..50_u8 {
            node.handle_packet(at(begin + 20 * u64::from(number)), received, &[4, number]);
        }
    };
    hear(&mut node, 0, 9);
    assert_eq!(passing(&mut node, 1999), [], "a stranger is not missed");
    hear(&mut node, 2000, 2);
    let [home, standby] = [1, 2].map(Region);
    let last = 2980;
    let asked = [home, standby].map(|region| (at(last + 156), Transmit::Ping { region }));
    let all: Vec<_> = passing(&mut node, last + 160);
    assert_eq!(
        all.iter().map(|(_, transmit)| *transmit).collect::<Vec<_>>(),
        asked.map(|(_, transmit)| transmit)
    );
    assert!(all.iter().all(|(at, _)| at.since(asked[0].0) < Duration::from_millis(1)), "{all:?}");
    node.handle_relay(at(last + 200), RelayEvent::Heard(standby));
    let all = passing(&mut node, last + 4000);
    let [(when, Transmit::Redial { region })] = all[..] else { panic!("{all:?}") };
    assert_eq!((region, when.since(at(last)).as_millis()), (home, 156 + 187));
}

#[test]
fn probes_of_a_peer_that_stay_away_have_the_links_asked_once() {
    let mut pair = Pair::new();
    pair.send(0, 100, at(0));
    pair.pass(at(1000));
    for now in (1000..2000).step_by(10) {
        pair.pass(at(now));
        pair.send(0, 100, at(now));
    }
    sent(&mut pair.nodes[1]);
    // The second one only receives. Nothing comes any more, and the first one has only stopped.
    let all = passing(&mut pair.nodes[1], 3000);
    let [(when, Transmit::Ping { region: REGION })] = all[..] else { panic!("{all:?}") };
    assert!(
        (1990 - 63 + 156..2000 + 156).contains(&(when.since(Instant::ZERO).as_millis() as u64)),
        "{when:?}"
    );
    let took = Duration::from_millis(40);
    pair.nodes[1].handle_relay(when + took, RelayEvent::RoundTrip { region: REGION, took });
    assert_eq!(passing(&mut pair.nodes[1], 20_000), []);
}

#[test]
fn a_link_that_does_not_answer_is_dialled_anew_once_and_again_in_five_seconds_at_the_earliest() {
    let mut node = with_a_standby();
    let redial = Transmit::Redial { region: REGION };
    let mut redials = Vec::new();
    for millis in (1000..30_000).step_by(20) {
        node.handle_timeout(at(millis));
        node.route(at(millis), &private(2).public(), 100);
        redials.extend(relays(&sent(&mut node)).contains(&redial).then_some(millis));
        // It is heard late, again and again.
        if millis % 3000 == 0 {
            node.handle_relay(at(millis), RelayEvent::Heard(REGION));
        }
    }
    assert!(redials.len() > 3 && redials.windows(2).all(|pair| pair[1] - pair[0] >= 5000), "{redials:?}");
    let mut node = with_a_standby();
    node.handle_network_change(at(1000));
    sent(&mut node);
    let redials = passing(&mut node, 20_000).len();
    assert_eq!(redials, 2, "once for each link, however long nothing comes");
}

#[test]
fn a_change_of_the_network_has_all_links_asked_and_dials_begun_again() {
    let mut node = with_a_standby();
    sent(&mut node);
    let ping = |region| Transmit::Ping { region: Region(region) };
    let redial = |region| Transmit::Redial { region: Region(region) };
    node.handle_network_change(at(1));
    assert_eq!(relays(&sent(&mut node)), [ping(1), ping(2)], "although both were heard a moment ago");
    assert_eq!(passing(&mut node, 1000).len(), 2, "none of them answers");
    node.handle_relay(at(1000), RelayEvent::Down(Region(2)));
    assert!(node.handle_interfaces(at(2000), &[address("198.51.100.7:41641")]));
    assert_eq!(relays(&sent(&mut node)), [redial(1), ping(1), redial(2)]);
    assert!(!node.handle_interfaces(at(2000), &[address("198.51.100.7:41641")]));
    node.handle_relay(at(2100), RelayEvent::Up(REGION));
    assert_eq!(passing(&mut node, 2100 + 24_000), []);
}
