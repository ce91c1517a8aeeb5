//! Pairs with relays in two regions: which of them is the home, and what the loss of it costs.

use std::time::Duration;

use towpath_disco::datagram::Region;
use towpath_disco::{NodeConfig, RelayConfig};
use towpath_sim::{Action, Class, FlowId, HostId, Link, Place, Site, Timing, World, sweep};
use towpath_wire::key::NodePrivate;
use towpath_wire::time::Instant;

use super::driver::{Host, START, config, flow, millis, seeds};

const NEAR: Region = Region(2);
const FAR: Region = Region(1);

/// Two hosts behind NATs of a class, and a relay with a STUN server in each of two regions, of which the second one is nearer.
struct Lab {
    world: World<Host>,
    hosts: [HostId; 2],
    sites: [Site; 2],
    relays: [Site; 2],
    timing: Timing,
}

impl Lab {
    fn new(class: Class, timing: Timing, seed: u64) -> Self {
        Self::pinned([None; 2], class, timing, seed)
    }

    /// Hosts whose homes are these regions; the nearest one if none is pinned.
    fn pinned(homes: [Option<Region>; 2], class: Class, timing: Timing, seed: u64) -> Self {
        let mut world = World::new(seed);
        let sites = [(); 2].map(|()| world.add_site());
        let relays = [(); 2].map(|()| world.add_site());
        world.set_links(sites[0], sites[1], Link::new(timing.direct / 2));
        set_distance(&mut world, sites, relays[0], timing.relay / 4 + millis(5));
        set_distance(&mut world, sites, relays[1], timing.relay / 4);
        let known = [FAR, NEAR].into_iter().zip(relays).map(|(region, site)| {
            world.add_relay(region, site);
            RelayConfig { region, stun: vec![world.add_stun(site)] }
        });
        let known: Vec<_> = known.collect();
        let mut random = world.random(9);
        let keys = [(); 2].map(|()| NodePrivate::from_random(random.bytes()));
        let hosts = [0, 1].map(|side| {
            let nat = world.add_nat(Place::Internet(sites[side]), class.nat().unwrap());
            let config = config(&keys[side], &mut random, &[], FAR);
            let config = NodeConfig { relays: known.clone(), home: homes[side], ..config };
            let machine = Host::of(config, keys[1 - side].public());
            world.add_host(keys[side].public(), &[Place::Behind(nat)], &[], machine)
        });
        Self { world, hosts, sites, relays, timing }
    }

    /// Sets the time that a packet takes between each host and the relay of a region.
    fn set_distance(&mut self, region: Region, delay: Duration) {
        set_distance(&mut self.world, self.sites, self.relays[usize::from(region.0) - 1], delay);
    }

    /// Data both ways for so long.
    fn send(&mut self, lasts: Duration) -> [FlowId; 2] {
        let [here, there] = self.hosts;
        [flow(&mut self.world, here, there, lasts), flow(&mut self.world, there, here, lasts)]
    }

    fn homes(&self) -> [[Option<Region>; 2]; 2] {
        self.hosts.map(|host| self.world.machine(host).node.homes())
    }

    /// The longest time without a packet around `at`, of any of the flows.
    fn gap(&self, flows: &[FlowId], at: Instant, end: Instant) -> Duration {
        let gaps =
            flows.iter().map(|flow| self.world.account(*flow).largest_gap(at - self.timing.relay, end));
        gaps.max().unwrap()
    }
}

fn set_distance(world: &mut World<Host>, sites: [Site; 2], relay: Site, delay: Duration) {
    for site in sites {
        world.set_links(site, relay, Link::new(delay));
    }
}

const fn after(seconds: u64) -> Instant {
    Instant::from_nanos((START.as_secs() + seconds) * 1_000_000_000)
}

#[test]
fn the_nearest_region_is_the_home_and_the_other_one_is_kept_ready() {
    let mut lab = Lab::new(Class::P, Timing::NEAR, 1);
    // A round trip to each STUN server, after which the links are dialled.
    lab.world.run_until(Instant::from(millis(75)));
    assert_eq!(lab.homes(), [[Some(NEAR), Some(FAR)]; 2]);
    lab.world.run_until(Instant::from(millis(300)));
    for host in lab.hosts {
        assert!(lab.world.is_connected(host, NEAR) && lab.world.is_connected(host, FAR));
    }
}

/// What breaks the home of a pair that is relayed, or of one that sends in one direction only.
fn break_home(what: Action, both: bool) {
    for timing in [Timing::NEAR, Timing::FAR] {
        let runs = sweep(seeds(), |seed| {
            let mut lab = Lab::new(Class::S, timing, seed as u64);
            let ([here, there], lasts) = (lab.hosts, Duration::from_secs(10));
            let flows =
                if both { lab.send(lasts).to_vec() } else { vec![flow(&mut lab.world, here, there, lasts)] };
            let at = after(4) + millis(7 * seed as u64);
            lab.world.run_until(at);
            lab.world.act_now(what.clone());
            lab.world.run_until(after(11));
            let doubles: u64 = flows.iter().map(|flow| lab.world.account(*flow).doubles).sum();
            (seed, lab.gap(&flows, at, after(10) - millis(20)), doubles)
        });
        // The patience of a link, the way over the other relay, and R because the relay died.
        let Timing { relay, direct, .. } = timing;
        let most = (3 * direct).max(millis(250)) + relay / 2 + millis(30) + relay;
        for (seed, gap, doubles) in runs {
            assert!(
                gap <= most,
                "{what:?}, R = {relay:?}, seed {seed}: a gap of {gap:?}, {most:?} is allowed"
            );
            assert_eq!(doubles, 0, "{what:?}, R = {relay:?}, seed {seed}");
        }
    }
}

/// The relay is not the home of the other host, which has a link to it because it sends over it.
#[test]
fn a_pair_of_two_homes_goes_on_when_one_of_the_relays_dies() {
    for timing in [Timing::NEAR, Timing::FAR] {
        for seed in 0..seeds() as u64 {
            let mut lab = Lab::pinned([Some(FAR), Some(NEAR)], Class::S, timing, seed);
            let flows = lab.send(Duration::from_secs(30));
            let at = after(4) + millis(7 * seed);
            lab.world.run_until(at);
            lab.world.act_now(Action::KillRelay(NEAR));
            lab.world.run_until(after(31));
            let Timing { relay, direct, .. } = timing;
            let most = (3 * direct).max(millis(250)) + relay / 2 + millis(30) + relay;
            let gap = lab.gap(&flows, at, after(8));
            assert!(gap <= most, "R = {relay:?}, seed {seed}: a gap of {gap:?}");
            let later = lab.gap(&flows, after(8), after(30) - millis(20));
            assert!(later <= millis(100), "R = {relay:?}, seed {seed}: a gap of {later:?} later");
        }
    }
}

#[test]
fn a_relayed_pair_whose_relay_dies_goes_on_over_the_other_one() {
    break_home(Action::KillRelay(NEAR), true);
}

#[test]
fn a_relayed_pair_whose_relay_falls_silent_goes_on_over_the_other_one() {
    break_home(Action::SilenceRelay(NEAR), true);
}

/// The one that only receives has a link to the other relay, which the sender uses.
#[test]
fn a_relayed_pair_of_which_one_sends_goes_on_over_the_other_relay() {
    break_home(Action::KillRelay(NEAR), false);
    break_home(Action::SilenceRelay(NEAR), false);
}

#[test]
fn a_pair_comes_home_when_its_relay_is_back() {
    let mut lab = Lab::new(Class::S, Timing::NEAR, 1);
    let flows = lab.send(Duration::from_secs(40));
    lab.world.run_until(after(4));
    lab.world.act_now(Action::KillRelay(NEAR));
    lab.world.run_until(after(8));
    assert_eq!(lab.homes(), [[Some(FAR), Some(NEAR)]; 2]);
    lab.world.act_now(Action::RestoreRelay(NEAR));
    lab.world.run_until(after(20));
    assert_eq!(lab.homes(), [[Some(NEAR), Some(FAR)]; 2]);
    lab.world.act_now(Action::KillRelay(FAR));
    lab.world.run_until(after(41));
    for flow in flows {
        let gap = lab.world.account(flow).largest_gap(after(20), after(39));
        assert!(gap <= millis(100), "the relay that is not used may die: a gap of {gap:?}");
    }
}

/// The relay is dead, and then the path becomes a hole.
#[test]
fn a_direct_pair_without_its_home_falls_back_on_the_other_relay() {
    for timing in [Timing::NEAR, Timing::FAR] {
        for seed in 0..seeds() as u64 {
            let mut lab = Lab::new(Class::P, timing, seed);
            let flows = lab.send(Duration::from_secs(12));
            lab.world.run_until(after(4));
            lab.world.act_now(Action::KillRelay(NEAR));
            let at = after(7) + millis(7 * seed);
            lab.world.run_until(at);
            let [here, there] = lab.sites;
            for (from, to) in [(here, there), (there, here)] {
                lab.world.act_now(Action::Block { from, to, blocked: true });
            }
            lab.world.run_until(after(13));
            let gap = lab.gap(&flows, at, after(12) - millis(20));
            let most = (3 * timing.direct).max(millis(250)) + timing.relay / 2 + millis(30) + millis(10);
            assert!(gap <= most, "{:?}, seed {seed}: a gap of {gap:?}", timing.relay);
        }
    }
}

#[test]
fn the_home_moves_to_a_region_that_is_much_nearer_and_the_peer_follows_without_loss() {
    // One way to each region now, and what becomes of the home.
    for (near, far, home) in [(20, 12, FAR), (20, 14, NEAR), (20, 16, NEAR), (4, 2, NEAR)] {
        let mut lab = Lab::new(Class::S, Timing::NEAR, 1);
        lab.set_distance(NEAR, millis(near));
        let flows = lab.send(Duration::from_secs(700));
        lab.world.run_until(after(10));
        assert_eq!(lab.homes()[0][0], Some(NEAR));
        lab.set_distance(FAR, millis(far));
        // Two rounds, because the least of the last two counts.
        lab.world.run_until(after(680));
        assert_eq!(lab.homes().map(|homes| homes[0]), [Some(home); 2], "{near} and {far} ms");
        lab.world.run_until(after(701));
        for flow in flows {
            let account = lab.world.account(flow);
            assert_eq!((account.missing(), account.doubles), (0, 0), "{near} and {far} ms");
            let newest = account.deliveries.last().unwrap();
            let region = if home == FAR { far } else { near };
            assert_eq!(newest.delay(), millis(2 * region), "{near} and {far} ms: the peer has followed");
        }
    }
}
