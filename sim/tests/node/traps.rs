//! Networks in which a machine that is right for the common case goes wrong.

use std::time::Duration;

use towpath_sim::{
    Action, Class, Dependence, Early, Link, Loss, Nat, Pair, Place, Pooling, Refresh, Timing, Traffic, Via,
    World,
};
use towpath_wire::time::Instant;

use super::driver::{Host, START, millis, seeds, started, until_direct};
use super::lab::Lab;

fn home() -> Nat {
    Class::P.nat().unwrap()
}

#[test]
fn delays_that_differ_by_direction_harm_no_nat_that_takes_early_packets() {
    for seed in 0..seeds() as u64 {
        for (out, back) in [(5, 35), (35, 5), (1, 39)] {
            let mut lab = Lab::behind(seed, Class::Poisonable.nat().unwrap());
            let [here, there] = lab.sites;
            lab.world.set_link(here, there, Link::new(millis(out)));
            lab.world.set_link(there, here, Link::new(millis(back)));
            lab.send(millis(2900));
            assert!(lab.until_direct().is_some(), "seed {seed}: {out} and {back} ms");
        }
    }
}

#[test]
fn a_home_nat_behind_one_of_a_carrier_is_no_hindrance() {
    for seed in 0..seeds() as u64 {
        let mut lab = Lab::new(seed, |world, side, site| {
            let carrier = world.add_nat(Place::Internet(site), home());
            if side == 0 {
                Place::Behind(world.add_nat(Place::Behind(carrier), home()))
            } else {
                Place::Behind(carrier)
            }
        });
        lab.send(millis(2900));
        let direct = lab.until_direct();
        assert!(direct.is_some_and(|took| took <= millis(130)), "seed {seed}: {direct:?}");
    }
}

#[test]
fn two_hosts_of_one_home_talk_over_its_network() {
    let mut shared = None;
    let mut lab = Lab::new(1, |world, _, site| {
        Place::Behind(*shared.get_or_insert_with(|| world.add_nat(Place::Internet(site), home())))
    });
    let flow = lab.send(millis(2900));
    assert!(lab.until_direct().is_some());
    lab.world.run_until(Instant::from(START) + Duration::from_secs(4));
    for (host, other) in [(0, 1), (1, 0)] {
        let host = lab.world.machine(lab.hosts[host]);
        let address = host.node.direct(&host.peer).unwrap();
        assert!(lab.world.addresses(lab.hosts[other]).contains(&address), "{address}");
    }
    let account = lab.world.account(flow);
    assert_eq!((account.missing(), account.doubles), (0, 0));
}

#[test]
fn two_homes_behind_a_carrier_that_does_not_hairpin_stay_on_the_relay_and_are_quiet() {
    let mut carrier = None;
    let mut lab = Lab::new(1, |world, _, site| {
        let carrier = *carrier.get_or_insert_with(|| world.add_nat(Place::Internet(site), home()));
        Place::Behind(world.add_nat(Place::Behind(carrier), home()))
    });
    let flow = lab.send(Duration::from_secs(8));
    assert_eq!(lab.until_direct(), None);
    lab.world.run_until(Instant::from(START) + Duration::from_secs(9));
    let account = lab.world.account(flow);
    assert_eq!((account.missing(), account.delivered(Via::Udp)), (0, 0));
    let probes: u64 =
        lab.hosts.iter().map(|host| lab.world.sent(*host).probes_to(|to| to.port() != 3478).packets).sum();
    assert!(probes <= 4 * 16, "{probes} probes");
}

#[test]
fn a_nat_with_several_addresses_that_gives_a_host_the_same_one_is_as_any_other() {
    for seed in 0..seeds() as u64 {
        let mut lab = Lab::behind(seed, Nat { addresses: 4, pooling: Pooling::Paired, ..home() });
        lab.send(millis(2900));
        assert!(lab.until_direct().is_some(), "seed {seed}");
    }
}

#[test]
fn a_reject_of_early_packets_does_no_harm() {
    for seed in 0..seeds() as u64 {
        let mut lab = Lab::new(seed, |world, side, site| {
            let early = if side == 0 { Early::Accept } else { Early::Drop };
            Place::Behind(world.add_nat(Place::Internet(site), Nat { early, ..home() }))
        });
        lab.send(millis(2900));
        assert!(lab.until_direct().is_some(), "seed {seed}");
    }
}

/// The mapping is gone when data is sent again. It goes over both ways until the path is proven, so that nothing is lost.
#[test]
fn a_nat_that_forgets_after_ten_seconds_loses_no_packet_of_a_pair_that_was_idle() {
    for refresh in [Refresh::Outbound, Refresh::Both] {
        let mut lab = Lab::behind(1, Nat { timeout: Duration::from_secs(10), refresh, ..home() });
        lab.send(millis(1000));
        assert!(lab.until_direct().is_some());
        let again = Instant::from(START) + Duration::from_secs(120);
        let later = lab.world.add_flow(towpath_sim::Flow {
            from: lab.hosts[0],
            to: lab.hosts[1],
            len: 100,
            start: again,
            interval: millis(20),
            count: 150,
        });
        lab.world.run_until(again + Duration::from_secs(10));
        assert_eq!(lab.world.account(later).missing(), 0, "{refresh:?}");
        let [one, other] = lab.hosts.map(|host| lab.world.machine(host).is_direct());
        assert!(one && other, "{refresh:?}: direct again");
    }
}

/// Neither peer can tell beforehand, because the one that keeps the path alive opens its own NAT.
#[test]
fn data_after_a_pause_gets_past_a_nat_of_the_receiver_that_forgets_after_ten_seconds() {
    for hasty in 0..2 {
        let mut lab = Lab::new(1, |world, side, site| {
            let timeout = if side == hasty { Duration::from_secs(10) } else { home().timeout };
            Place::Behind(world.add_nat(Place::Internet(site), Nat { timeout, ..home() }))
        });
        lab.send(millis(1000));
        assert!(lab.until_direct().is_some());
        let flows: Vec<_> = (0..40)
            .map(|number| {
                let (from, to) = if number % 2 == 0 { (0, 1) } else { (1, 0) };
                lab.world.add_flow(towpath_sim::Flow {
                    from: lab.hosts[from],
                    to: lab.hosts[to],
                    len: 100,
                    start: Instant::from(START) + Duration::from_secs(10) + number * millis(13_700),
                    interval: millis(20),
                    count: 5,
                })
            })
            .collect();
        lab.world.run_until(Instant::from(START) + Duration::from_secs(600));
        for flow in flows {
            let account = lab.world.account(flow);
            assert_eq!((account.missing(), account.doubles), (0, 0), "side {hasty}: {flow}");
        }
    }
}

/// The path fails at first, and then no more, because it is kept alive more often.
#[test]
fn an_idle_pair_learns_how_long_a_nat_keeps_a_mapping() {
    for refresh in [Refresh::Outbound, Refresh::Both] {
        for seed in 1..5 {
            let timeout = Duration::from_secs(10);
            let mut lab = Lab::behind(seed, Nat { timeout, refresh, ..home() });
            lab.send(millis(1000));
            assert!(lab.until_direct().is_some());
            let offers = |lab: &Lab| lab.hosts.map(|host| lab.world.sent(host).signalling.packets);
            lab.world.run_until(Instant::from(START) + Duration::from_secs(20));
            let before = offers(&lab);
            lab.world.run_until(Instant::from(START) + Duration::from_secs(90));
            let learned = offers(&lab);
            assert!(learned > before, "{refresh:?}, seed {seed}: the path has not failed");
            lab.world.run_until(Instant::from(START) + Duration::from_secs(590));
            assert_eq!(offers(&lab), learned, "{refresh:?}, seed {seed}: the path has failed again");
            for host in lab.hosts {
                assert!(lab.world.machine(host).is_direct(), "{refresh:?}, seed {seed}: {host}");
            }
        }
    }
}

/// A burst of loss may take all probes of an attempt. Others follow after 1 s, 10 s and 20 s, with what an address bears.
#[test]
fn bursts_of_loss_put_a_pair_off_to_a_later_attempt() {
    let are_direct = |seed| {
        let mut lab = Lab::behind(seed, home());
        let [here, there] = lab.sites;
        let link = Link::new(millis(20)).losing(Loss::bursts(0.12, 25.0), Traffic::Udp);
        lab.world.set_links(here, there, link);
        lab.send(Duration::from_secs(40));
        let hosts = lab.hosts;
        let are_direct = |world: &World<Host>| hosts.iter().all(|host| world.machine(*host).is_direct());
        lab.world.run_until_holds(Instant::from(START) + Duration::from_secs(40), are_direct).is_some()
    };
    let direct = (0..seeds() as u64).filter(|seed| are_direct(*seed)).count();
    assert!(direct * 100 >= seeds() * 95, "{direct} of {}", seeds());
}

#[test]
fn datagrams_that_come_twice_or_out_of_order_change_nothing() {
    for seed in 0..seeds() as u64 {
        let mut lab = Lab::behind(seed, home());
        let [here, there] = lab.sites;
        let link = Link {
            duplicate: 0.3,
            reorder: 0.3,
            reorder_by: millis(30),
            jitter: millis(5),
            ..Link::new(millis(20))
        };
        lab.world.set_links(here, there, link);
        let flow = lab.send(millis(2900));
        assert!(lab.until_direct().is_some(), "seed {seed}");
        lab.world.run_until(Instant::from(START) + Duration::from_secs(4));
        let account = lab.world.account(flow);
        assert_eq!((account.missing(), account.swallowed), (0, 0), "seed {seed}");
    }
}

#[test]
fn filtering_by_address_alone_lets_a_port_in_that_nobody_has_named() {
    for seed in 0..seeds() as u64 {
        let pair = Pair::new(Class::A, Class::R, Timing::NEAR, seed);
        assert_eq!(Class::A.nat().unwrap().filtering, Dependence::AddressDependent);
        let (mut stage, _) = started(&pair, millis(2900), true);
        assert!(until_direct(&mut stage).is_some(), "{pair}");
    }
}

#[test]
fn a_silent_relay_and_a_clock_that_jumps_do_not_disturb_a_direct_pair() {
    for seed in 0..seeds() as u64 {
        let pair = Pair::new(Class::P, Class::P, Timing::NEAR, seed);
        let (mut stage, flows) = started(&pair, Duration::from_secs(8), true);
        until_direct(&mut stage).unwrap();
        stage.world.run_until(Instant::from(START) + Duration::from_secs(2));
        stage.world.act_now(Action::SilenceRelay(stage.region));
        stage.world.act_now(Action::StepClock { host: stage.hosts[0], by: Duration::from_secs(1000) });
        stage.world.run_until(Instant::from(START) + Duration::from_secs(9));
        for flow in flows {
            assert_eq!(stage.world.account(flow).missing(), 0, "{pair}");
        }
    }
}

#[test]
fn a_host_that_was_suspended_goes_on() {
    for seed in 0..seeds() as u64 {
        let pair = Pair::new(Class::P, Class::P, Timing::NEAR, seed);
        let (mut stage, flows) = started(&pair, Duration::from_secs(80), true);
        until_direct(&mut stage).unwrap();
        let sleep = Instant::from(START) + Duration::from_secs(2);
        stage.world.run_until(sleep);
        stage.world.act_now(Action::Suspend { host: stage.hosts[0], lasts: Duration::from_secs(60) });
        stage.world.run_until(Instant::from(START) + Duration::from_secs(81));
        let awake = sleep + Duration::from_secs(60);
        for flow in flows {
            let gap = stage.world.account(flow).largest_gap(awake, awake + Duration::from_secs(17));
            assert!(gap <= millis(600), "{pair}: {gap:?}");
        }
    }
}
