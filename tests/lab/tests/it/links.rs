//! The conditions of links, by measurement.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread::scope;
use std::time::Duration;

use towpath_lab::{Class, Lab, Link, Loss, Traffic};

use crate::tools::{TRIES, Two, bind, came_before, quantile, receive, turn};

/// By how much a delay may be off.
const ERROR: Duration = Duration::from_millis(1);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn each_direction_has_the_delay_that_was_asked_for() {
    let Some(_turn) = turn() else { return };
    let two = Two::build(3);
    for delays in [[20, 5], [0, 1], [150, 60]] {
        let [there, back] = delays.map(millis);
        two.lab.change_link(two.sites[0], two.sites[1], |link| link.delay = there);
        two.lab.change_link(two.sites[1], two.sites[0], |link| link.delay = back);
        for (from, delay) in [(0, there), (1, back)] {
            let is_exact = || {
                let flow = two.flow(from, 300, 1);
                let (least, median) = (quantile(&flow, 0), quantile(&flow, 500));
                println!("asked for {delay:?}: least {least:?}, median {median:?}");
                assert!(flow.len() == 300 && least >= delay);
                assert!(flow.is_sorted_by_key(|(number, _)| *number), "packets keep their order");
                median < delay + ERROR
            };
            assert!((0..TRIES).any(|_| is_exact()), "{delay:?}");
        }
    }
}

#[test]
fn jitter_spreads_and_reordering_overtakes() {
    let Some(_turn) = turn() else { return };
    let two = Two::build(4);
    let (delay, jitter, late) = (millis(10), millis(8), millis(30));
    two.lab.change_links(two.sites[0], two.sites[1], |link| (link.delay, link.jitter) = (delay, jitter));
    let is_spread = || {
        let flow = two.flow(0, 1000, 1);
        let [least, median, most] = [0, 500, 900].map(|share| quantile(&flow, share));
        println!("asked for 10 to 18 ms: least {least:?}, median {median:?}, 90 % {most:?}");
        assert!(flow.len() == 1000 && flow.is_sorted_by_key(|(number, _)| *number));
        assert!(least >= delay && most > delay + millis(6));
        least < delay + millis(2) && most < delay + jitter + ERROR
    };
    assert!((0..TRIES).any(|_| is_spread()));

    let reordering = Link { delay, reorder: 0.1, reorder_by: late, ..Link::new(delay) };
    two.lab.change_links(two.sites[0], two.sites[1], |link| *link = reordering);
    let flow = two.flow(1, 1000, 1);
    let overtaken = flow.iter().filter(|(_, taken)| *taken >= delay + late).count();
    println!("asked for 10 % overtaken: {overtaken} of {}", flow.len());
    assert!(flow.len() == 1000 && (60..150).contains(&overtaken));
    assert!(!flow.is_sorted_by_key(|(number, _)| *number));
}

#[test]
fn loss_is_as_asked_counted_and_the_same_with_the_same_seed() {
    let Some(_turn) = turn() else { return };
    let count = 20_000;
    let arrived = |seed| {
        let two = Two::build(seed);
        two.lab.change_link(two.sites[0], two.sites[1], |link| link.loss = Loss::Random(0.05));
        let flow = two.flow(0, count, 20);
        let lost = u64::from(count) - flow.len() as u64;
        assert_eq!(two.lab.counts(two.sites[0], two.sites[1]).lost, lost, "no packet is lost elsewhere");
        println!("asked for 5 %: {lost} of {count}");
        // Four standard deviations.
        assert!((877..1123).contains(&lost));
        assert_eq!(two.flow(1, 1000, 20).len(), 1000, "the other direction loses nothing");
        flow.into_iter().map(|(number, _)| number).collect::<Vec<_>>()
    };
    let one = arrived(5);
    assert_eq!(one, arrived(5));
    assert_ne!(one, arrived(6));
}

/// Sends so many bytes over TCP from one side of two to the other, and returns those that arrive.
fn transfer(two: &Two, from: usize, bytes: &[u8]) -> Vec<u8> {
    let (sender, receiver) = (&two.servers[from], &two.servers[1 - from]);
    let listener = receiver.namespace().run(|| TcpListener::bind((receiver.v4(), 0))).unwrap();
    let to = listener.local_addr().unwrap();
    scope(|scope| {
        scope.spawn(|| {
            let mut stream = sender.namespace().run(|| TcpStream::connect(to)).unwrap();
            stream.write_all(bytes).unwrap();
        });
        let mut arrived = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut arrived).unwrap();
        arrived
    })
}

#[test]
fn loss_and_blocks_are_of_udp_only_or_of_everything() {
    let Some(_turn) = turn() else { return };
    let two = Two::build(7);
    let [here, there] = two.sites;
    let bytes = vec![7; 2_000_000];
    let counts = || two.lab.counts(here, there);
    two.lab.change_links(here, there, |link| (link.delay, link.loss) = (millis(1), Loss::Random(0.05)));
    assert_eq!(transfer(&two, 0, &bytes), bytes);
    assert_eq!(counts().lost, 0, "TCP is not harmed");
    two.lab.change_links(here, there, |link| link.applies_to = Traffic::Everything);
    assert_eq!(transfer(&two, 0, &bytes), bytes);
    println!("of {} packets with 5 % loss of everything, {} were lost", counts().carried, counts().lost);
    assert!(counts().lost > 10, "TCP is harmed");

    two.lab.change_links(here, there, |link| *link = Link::new(Duration::ZERO));
    two.lab.change_link(here, there, |link| link.blocked = true);
    two.sockets[0].send_to(b"blocked", two.address(1)).unwrap();
    assert_eq!(transfer(&two, 0, &bytes), bytes);
    two.sockets[1].send_to(b"open", two.address(0)).unwrap();
    assert_eq!(receive(&two.sockets[0]).0, b"open", "the other direction is open");
    assert_eq!(counts().blocked, 1, "the datagram, and nothing of TCP");
    two.lab.change_link(here, there, |link| link.applies_to = Traffic::Everything);
    let to = two.address(1);
    let refused = two.servers[0].namespace().run(|| TcpStream::connect_timeout(&to, millis(300)));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert!(counts().blocked > 1, "the beginning of a connection");
    two.lab.change_link(here, there, |link| link.blocked = false);
    two.sockets[0].send_to(b"behind", two.address(1)).unwrap();
    assert!(!came_before(&two.sockets[1], b"blocked", b"behind"));
}

#[test]
fn hops_run_out_between_the_nats() {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(8).unwrap();
    let sites = [lab.add_site(), lab.add_site()];
    let nat = lab.add_nat(Class::P, sites[0]).unwrap();
    let host = lab.add_host(&nat).unwrap();
    let server = lab.add_server(sites[1]).unwrap();
    let (inside, outside) = (bind(host.namespace(), host.address()), bind(server.namespace(), server.v4()));
    // The NAT and two routers take a hop each.
    for (hops, payload) in [(3, b"short"), (4, b"ample")] {
        inside.set_ttl(hops).unwrap();
        inside.send_to(payload, outside.local_addr().unwrap()).unwrap();
    }
    let (payload, mapped) = receive(&outside);
    assert_eq!((payload.as_slice(), lab.counts(sites[0], sites[1]).expired), (&b"ample"[..], 1));
    // What died had opened the NAT.
    outside.send_to(b"answer", mapped).unwrap();
    assert_eq!(receive(&inside).0, b"answer");
}

/// Sends 40 datagrams of 1,200 bytes with one system call.
const SEGMENTS: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_UDP, 103, 1200)
s.sendto(b''.join(bytes([n]) * 1200 for n in range(40)), (sys.argv[1], int(sys.argv[2])))
";

#[test]
fn packets_that_the_kernel_cuts_late_arrive_whole() {
    let Some(_turn) = turn() else { return };
    let two = Two::build(9);
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    assert_eq!(transfer(&two, 0, &bytes), bytes);
    let mut lab = Lab::new(9).unwrap();
    let site = lab.add_site();
    let nat = lab.add_nat(Class::S, site).unwrap();
    let host = lab.add_host(&nat).unwrap();
    let server = lab.add_server(site).unwrap();
    let outside = bind(server.namespace(), server.v4());
    let port = outside.local_addr().unwrap().port().to_string();
    let mut python: Command = host.namespace().command("python3");
    let status = python.args(["-c", SEGMENTS, &server.v4().to_string(), &port]).status().unwrap();
    assert!(status.success(), "python3 sends with GSO");
    for number in 0..40 {
        assert_eq!(receive(&outside).0, [number; 1200]);
    }
}
