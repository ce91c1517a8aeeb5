//! What links do to datagrams.

use std::time::Duration;

use towpath_sim::{Action, HostId, Link, Loss, Place, Site, Traffic, World};

use crate::puppet::{Puppet, add, at, heard, ms, run, send, world};

/// A world with two hosts on the internet, and a link from the first to the second.
fn two(link: Link) -> (World<Puppet>, [HostId; 2], [Site; 2]) {
    let (mut world, sites) = world(1);
    let hosts = sites.map(|site| add(&mut world, Place::Internet(site)));
    world.set_link(sites[0], sites[1], link);
    run(&mut world, 0);
    (world, hosts, sites)
}

/// Sends numbered datagrams, one each millisecond, and returns the numbers that arrive, each with its delay.
fn stream(link: Link, count: u64) -> Vec<(u64, Duration)> {
    let (mut world, [a, b], _) = two(link);
    let dst = world.addresses(b)[0];
    let mut sent = Vec::new();
    for number in 0..count {
        sent.push(world.now());
        send(&mut world, a, dst, &number.to_string());
        run(&mut world, 1);
    }
    run(&mut world, 10_000);
    let arrived = world.with(b, |puppet, _| std::mem::take(&mut puppet.heard));
    let number = |packet: Vec<u8>| String::from_utf8(packet).unwrap().parse::<u64>().unwrap();
    arrived
        .into_iter()
        .map(|(at, _, packet)| {
            let number = number(packet);
            (number, at.since(sent[usize::try_from(number).unwrap()]))
        })
        .collect()
}

#[test]
fn jitter_delays_and_does_not_reorder() {
    let arrived = stream(Link { jitter: ms(10), ..Link::new(ms(30)) }, 1000);
    assert!(arrived.iter().map(|(number, _)| *number).eq(0..1000), "all, and in order");
    assert!(arrived.iter().all(|(_, delay)| (ms(30)..ms(50)).contains(delay)));
    let delays: std::collections::BTreeSet<_> = arrived.iter().map(|(_, delay)| *delay).collect();
    assert!(delays.len() > 100);
}

#[test]
fn some_packets_are_overtaken_where_the_link_reorders() {
    let link = Link { reorder: 0.1, reorder_by: ms(5), ..Link::new(ms(30)) };
    let arrived = stream(link, 1000);
    let late = arrived.iter().filter(|(_, delay)| *delay == ms(35)).count();
    assert!((60..140).contains(&late), "{late}");
    assert_eq!(arrived.iter().filter(|(_, delay)| *delay == ms(30)).count(), 1000 - late);
    assert!(!arrived.is_sorted());
}

#[test]
fn some_packets_arrive_twice_where_the_link_duplicates() {
    let arrived = stream(Link { duplicate: 0.1, ..Link::new(ms(30)) }, 1000);
    let doubles = arrived.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert_eq!(arrived.len(), 1000 + doubles);
    assert!((60..140).contains(&doubles), "{doubles}");
}

#[test]
fn loss_is_of_the_given_share_and_in_bursts_of_the_given_length() {
    for (loss, length) in [(Loss::Random(0.05), 1.05), (Loss::bursts(0.05, 8.0), 8.0)] {
        let arrived = stream(Link::new(ms(1)).losing(loss, Traffic::Udp), 20_000);
        let lost = 20_000 - arrived.len();
        assert!((700..1300).contains(&lost), "{loss:?}: {lost}");
        let gaps = arrived.windows(2).filter(|pair| pair[1].0 != pair[0].0 + 1).count();
        let mean = f64::from(u32::try_from(lost).unwrap()) / f64::from(u32::try_from(gaps).unwrap());
        assert!((0.75 * length..1.25 * length).contains(&mean), "{loss:?}: {mean}");
    }
}

#[test]
fn packets_above_the_mtu_vanish() {
    let (mut world, [a, b], _) = two(Link { mtu: 1280, ..Link::new(ms(1)) });
    let dst = world.addresses(b)[0];
    send(&mut world, a, dst, &"x".repeat(1252));
    send(&mut world, a, dst, &"y".repeat(1253));
    run(&mut world, 10);
    assert_eq!(heard(&mut world, b), ["x".repeat(1252)]);
}

#[test]
fn a_rate_queues_packets_for_100_ms_and_drops_the_rest() {
    let (mut world, [a, b], _) = two(Link { rate: Some(100_000), ..Link::new(ms(30)) });
    let dst = world.addresses(b)[0];
    for _ in 0..50 {
        send(&mut world, a, dst, &"x".repeat(972));
    }
    run(&mut world, 1000);
    let heard = &world.machine(b).heard;
    // Each takes 10 ms, and the one that would wait longer than 100 ms is lost.
    assert_eq!(heard.len(), 11);
    assert_eq!((heard[0].0, heard[10].0), (at(40), at(140)));
}

#[test]
fn a_blocked_direction_blocks_nothing_else() {
    let (mut world, [a, b], [here, there]) = two(Link::new(ms(30)));
    let [to_a, to_b] = [a, b].map(|host| world.addresses(host)[0]);
    world.at(at(10), Action::Block { from: here, to: there, blocked: true });
    world.at(at(50), Action::Block { from: here, to: there, blocked: false });
    for _ in 0..6 {
        let text = world.now().as_nanos().to_string();
        send(&mut world, a, to_b, &text);
        send(&mut world, b, to_a, &text);
        run(&mut world, 10);
    }
    run(&mut world, 100);
    let sent = |world: &mut World<Puppet>, host| {
        let millis = |text: String| text.parse::<u64>().unwrap() / 1_000_000;
        heard(world, host).into_iter().map(millis).collect::<Vec<_>>()
    };
    assert_eq!(sent(&mut world, b), [0, 50]);
    assert_eq!(sent(&mut world, a), [0, 10, 20, 30, 40, 50]);
}
