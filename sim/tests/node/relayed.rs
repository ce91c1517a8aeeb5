//! Pairs that stay on the relay, and what they lose when it fails.

use std::time::Duration;

use towpath_sim::{Account, Action, Class, Pair, Timing, Via, sweep};
use towpath_wire::time::Instant;

use super::driver::{START, millis, seeds, started};

/// When the relay fails.
const BREAK: Duration = Duration::from_secs(7);
/// How long it does not work.
const OUTAGE: Duration = Duration::from_secs(2);
/// How long the data lasts, from [`START`] on.
const LASTS: Duration = Duration::from_secs(8);
/// The pause of the driver between two dials of a home that cannot be reached.
const REDIAL: Duration = Duration::from_secs(1);

/// The relay of a pair of which each side has a port for each destination fails and works again. What came of the data of both
/// sides, and when the relay failed.
fn outage(pair: &Pair, fails: impl Fn(towpath_disco::datagram::Region) -> Action) -> (Vec<Account>, Instant) {
    let (mut stage, flows) = started(pair, LASTS, true);
    let at = Instant::from(BREAK) + millis(7 * pair.seed);
    stage.world.run_until(at);
    stage.world.act_now(fails(stage.region));
    stage.world.at(at + OUTAGE, Action::RestoreRelay(stage.region));
    stage.world.run_until(Instant::from(START + LASTS) + millis(500));
    for host in stage.hosts {
        assert!(!stage.world.machine(host).is_direct(), "{pair}");
        let sent = stage.world.sent(host);
        let probes = sent.probes_to(|to| to.port() != 3478);
        assert!(probes.bytes <= 1024, "{pair}: {host} has sent {probes:?}");
        assert!(sent.signalling.packets <= 8, "{pair}: {host} has sent {:?}", sent.signalling);
    }
    (flows.into_iter().map(|flow| stage.world.account(flow).clone()).collect(), at)
}

/// The longest pause in the data of either side, from the failure on.
fn pause(accounts: &[Account], at: Instant) -> Duration {
    let end = Instant::from(START + LASTS);
    accounts.iter().map(|account| account.largest_gap(at, end)).max().unwrap()
}

fn each_pair(check: impl Fn(&Pair) + Sync) {
    for timing in [Timing::NEAR, Timing::FAR] {
        sweep(seeds(), |seed| check(&Pair::new(Class::S, Class::S, timing, seed as u64)));
    }
}

#[test]
fn data_flows_again_as_soon_as_the_link_to_a_relay_that_was_killed_is_up() {
    each_pair(|pair| {
        let (accounts, at) = outage(pair, Action::KillRelay);
        let most = OUTAGE + REDIAL + pair.timing.relay / 2 + millis(30);
        let pause = pause(&accounts, at);
        assert!(pause <= most, "{pair}: a pause of {pause:?}");
        for account in accounts {
            assert_eq!((account.doubles, account.swallowed), (0, 0), "{pair}");
        }
    });
}

#[test]
fn what_a_silent_relay_holds_back_arrives_once_when_it_works_again() {
    each_pair(|pair| {
        let (accounts, at) = outage(pair, Action::SilenceRelay);
        let most = OUTAGE + millis(30);
        let pause = pause(&accounts, at);
        assert!(pause <= most, "{pair}: a pause of {pause:?}");
        for account in accounts {
            assert_eq!((account.missing(), account.doubles, account.swallowed), (0, 0, 0), "{pair}");
            assert_eq!(account.delivered(Via::Udp), 0, "{pair}");
        }
    });
}

/// The NAT of the first host or of the second one forgets the link to the relay, of which neither end hears, while the first one sends.
#[test]
fn a_nat_that_forgets_the_link_to_the_relay_costs_half_a_second() {
    for timing in [Timing::NEAR, Timing::FAR] {
        for side in [0, 1] {
            let gaps = sweep(seeds(), |seed| {
                let pair = Pair::new(Class::S, Class::S, timing, seed as u64);
                let (mut stage, flows) = started(&pair, LASTS, false);
                let at = Instant::from(BREAK) + millis(7 * pair.seed);
                stage.world.run_until(at);
                stage.world.act_now(Action::ForgetStreams { nat: stage.nats[side].unwrap() });
                stage.world.run_until(Instant::from(START + LASTS) + millis(500));
                let account = stage.world.account(flows[0]);
                assert_eq!(account.doubles, 0, "{pair}");
                assert!(stage.hosts.iter().all(|host| stage.world.sent(*host).redials <= 1), "{pair}");
                account.largest_gap(at, Instant::from(START + LASTS) - millis(20))
            });
            let gap = gaps.into_iter().max().unwrap();
            // What comes further away may be late for longer, and a dial takes longer.
            let most = if timing == Timing::NEAR { millis(500) } else { millis(800) };
            println!("{timing:?}, side {side}: {gap:?}");
            assert!(gap <= most, "{timing:?}, side {side}: a gap of {gap:?}");
        }
    }
}
