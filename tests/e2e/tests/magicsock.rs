//! Our endpoint beside a peer on Tailscale's own code for paths: both become direct, whichever side sends first, over our relay and over
//! derper. These tests need root and foreign programs, and say `skipped` without.

use std::time::Duration;

use towpath::PongVia;
use towpath_e2e::{Duo, Fate, First, Kind, REGION, turn};
use towpath_lab::{Class, Pair, Timing};

/// The classes of the NATs of our endpoint and of the stock peer.
const PAIRS: [(Class, Class); 7] = [
    (Class::O, Class::O),
    (Class::P, Class::P),
    (Class::O, Class::P),
    (Class::P, Class::O),
    (Class::S, Class::O),
    (Class::O, Class::S),
    (Class::R, Class::O),
];

/// How long a pair may take to be direct.
const LIMIT: Duration = Duration::from_secs(3);

#[expect(clippy::print_stdout, reason = "how long each pair has taken")]
fn become_direct(kind: Kind, first: First) {
    let Some((programs, _turn)) = turn() else { return };
    for (seed, (ours, stock)) in (1..).zip(PAIRS) {
        let mut duo = Duo::start(kind, programs, &Pair::new(ours, stock, Timing::NEAR, seed), first);
        let outcome = duo.talk();
        println!("{kind:?}, {first:?} first, {ours}-{stock}: {outcome}");
        let direct = outcome.direct().unwrap_or_else(|| panic!("not direct: {ours}-{stock}"));
        assert!(direct < LIMIT, "{direct:?}");
        let [there, back] = [outcome.packets[0].there, outcome.packets[0].back.map(|(direct, _)| direct)];
        assert_eq!((there, back), (Some(false), Some(false)), "the first packet and its echo are relayed");
        let lost = outcome.packets.iter().filter(|packet| packet.back.is_none()).count();
        assert_eq!(lost, 0, "no packet and no echo is lost");
        let is_direct = |packet: &Fate| packet.there == Some(true) && packet.back.is_some_and(|back| back.0);
        let later = outcome.after(direct);
        assert!(later.len() > 50 && later.iter().all(is_direct), "{later:?}");
        let (pong, stocks) = duo.ping();
        let (Some(ours), Some(stock)) = (outcome.ours, outcome.stock) else { panic!("both are direct") };
        assert_eq!((pong.via, stocks), (PongVia::Address(ours.1), Some(stock.1)));
    }
}

#[test]
fn a_pair_becomes_direct_through_our_relay_when_ours_sends_first() {
    become_direct(Kind::Towpath, First::Ours);
}

#[test]
fn a_pair_becomes_direct_through_our_relay_when_the_stock_peer_sends_first() {
    become_direct(Kind::Towpath, First::Stock);
}

#[test]
fn a_pair_becomes_direct_through_derper_when_ours_sends_first() {
    become_direct(Kind::Derper, First::Ours);
}

#[test]
fn a_pair_becomes_direct_through_derper_when_the_stock_peer_sends_first() {
    become_direct(Kind::Derper, First::Stock);
}

#[test]
fn a_pair_without_udp_talks_and_pings_over_the_relay() {
    let Some((programs, _turn)) = turn() else { return };
    for kind in [Kind::Towpath, Kind::Derper] {
        let mut duo =
            Duo::start(kind, programs, &Pair::new(Class::X, Class::P, Timing::NEAR, 8), First::Ours);
        let outcome = duo.talk();
        println!("{kind:?}, X-P: {outcome}");
        assert_eq!((outcome.ours, outcome.stock), (None, None));
        let is_relayed =
            |packet: &Fate| packet.there == Some(false) && packet.back.is_some_and(|back| !back.0);
        assert!(outcome.packets.iter().all(is_relayed), "{outcome}");
        let (pong, stock) = duo.ping();
        assert_eq!((pong.via, stock), (PongVia::Region(REGION.0), None));
    }
}
