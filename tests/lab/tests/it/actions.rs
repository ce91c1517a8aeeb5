//! What happens to NATs and hosts, and what runs in a namespace.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use towpath_lab::{Class, Host, Lab, Nat, Pair, Rebinding, Server, Stage, Timing, Traffic};

use crate::tools::{PATIENCE, bind, came_before, receive, turn};

/// A host behind a NAT of a class, and a server.
fn one(lab: &mut Lab, class: Class) -> (Nat, Host, Server) {
    let sites = [lab.add_site(), lab.add_site()];
    let nat = lab.add_nat(class, sites[0]).unwrap();
    let host = lab.add_host(&nat).unwrap();
    (nat, host, lab.add_server(sites[1]).unwrap())
}

/// The source that a socket sees of another.
#[track_caller]
fn mapped(inside: &UdpSocket, outside: &UdpSocket) -> SocketAddr {
    inside.send_to(b"out", outside.local_addr().unwrap()).unwrap();
    receive(outside).1
}

#[test]
fn a_nat_that_rebinds_knows_no_flow_of_before() {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(11).unwrap();
    for class in [Class::F, Class::A, Class::P, Class::Poisonable, Class::M, Class::S, Class::B, Class::R] {
        let (nat, host, server) = one(&mut lab, class);
        let (inside, outside) =
            (bind(host.namespace(), host.address()), bind(server.namespace(), server.v4()));
        let first = mapped(&inside, &outside);
        nat.rebind(Rebinding::NewPorts).unwrap();
        let second = mapped(&inside, &outside);
        assert_ne!(first, second, "{class}");
        outside.send_to(b"stale", first).unwrap();
        outside.send_to(b"fresh", second).unwrap();
        assert!(!came_before(&inside, b"stale", b"fresh"), "{class}");
    }
    let (nat, host, server) = one(&mut lab, Class::P);
    let (inside, outside) = (bind(host.namespace(), host.address()), bind(server.namespace(), server.v4()));
    let first = mapped(&inside, &outside);
    nat.rebind(Rebinding::SamePorts).unwrap();
    let other = bind(host.namespace(), host.address());
    let open = mapped(&other, &outside);
    outside.send_to(b"too soon", first).unwrap();
    outside.send_to(b"behind", open).unwrap();
    assert_eq!(receive(&other).0, b"behind");
    assert_eq!(mapped(&inside, &outside), first);
    outside.send_to(b"open again", first).unwrap();
    assert!(!came_before(&inside, b"too soon", b"open again"));
}

#[test]
fn a_host_switches_its_uplink() {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(12).unwrap();
    let (wifi, mut host, server) = one(&mut lab, Class::P);
    let site = lab.add_site();
    let [mobile, open, six] = [Class::R, Class::O, Class::V6].map(|class| lab.add_nat(class, site).unwrap());
    let outside = bind(server.namespace(), server.v4());
    let from = |host: &Host| mapped(&bind(host.namespace(), host.address()), &outside).ip();
    assert_eq!(from(&host), wifi.address());
    host.switch(&mobile).unwrap();
    assert_eq!(from(&host), mobile.address());
    host.switch(&open).unwrap();
    assert_eq!(from(&host), host.address());
    host.switch(&six).unwrap();
    let outside6 = bind(server.namespace(), server.v6());
    assert_eq!(mapped(&bind(host.namespace(), host.address()), &outside6).ip(), host.address());
    host.unplug().unwrap();
    let unspecified = bind(host.namespace(), "0.0.0.0".parse().unwrap());
    assert!(unspecified.send_to(b"nowhere", outside.local_addr().unwrap()).is_err());
    host.plug(&wifi).unwrap();
    assert_eq!(from(&host), wifi.address());
}

#[test]
fn a_gateway_keeps_its_hardware_address_when_a_host_leaves() {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(17).unwrap();
    let (nat, mut host, _server) = one(&mut lab, Class::P);
    let link = || {
        let output =
            nat.namespace().command("ip").args(["-o", "link", "show", "dev", "lan"]).output().unwrap();
        let line = String::from_utf8(output.stdout).unwrap();
        line.split_once("link/ether ").unwrap().1.to_owned()
    };
    let before = link();
    // A port with a low address is what a bridge would take its own from.
    let low = ["link", "add", "name", "low", "address", "00:00:00:00:00:01", "master", "lan", "type", "veth"];
    assert!(nat.namespace().command("ip").args(low).status().unwrap().success());
    assert_eq!(link(), before);
    host.unplug().unwrap();
    assert_eq!(link(), before);
}

#[test]
fn runtimes_and_commands_are_in_their_namespace() {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(13).unwrap();
    let (nat, host, server) = one(&mut lab, Class::P);
    let (client, service) = (host.namespace().runtime().unwrap(), server.namespace().runtime().unwrap());
    let address = server.v4();
    let (bound, binding) = tokio::sync::oneshot::channel();
    let serving = service.spawn(async move {
        let socket = tokio::net::UdpSocket::bind((address, 0)).await.unwrap();
        bound.send(socket.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 64];
        let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
        socket.send_to(&buffer[..len], from).await.unwrap();
        from.ip()
    });
    let echoed = client.block_on(async move {
        let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
        socket.send_to(b"there and back", binding.await.unwrap()).await.unwrap();
        let mut buffer = [0; 64];
        let (len, _) = socket.recv_from(&mut buffer).await.unwrap();
        buffer[..len].to_vec()
    });
    assert_eq!(echoed, b"there and back");
    assert_eq!(service.block_on(async { serving.await.unwrap() }), nat.address());
    let output = host.namespace().command("ip").args(["-4", "-o", "address"]).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert!(listed.contains(&host.address().to_string()), "{listed}");
}

/// Waits for what the wire does with a packet.
#[track_caller]
fn await_that(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "the wire does nothing");
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_udp_of_a_side_is_lost_or_blocked_and_nothing_else() {
    let Some(_turn) = turn() else { return };
    let stage = Stage::build(&Pair::new(Class::P, Class::P, Timing::NEAR, 18)).unwrap();
    let inside = stage.hosts.each_ref().map(|host| bind(host.namespace(), host.address()));
    let relay = bind(stage.relay.namespace(), stage.relay.v4());
    let to = relay.local_addr().unwrap();
    let back = mapped(&inside[0], &relay);
    let listener = stage.relay.namespace().run(|| TcpListener::bind((stage.relay.v4(), 0))).unwrap();
    let stream = listener.local_addr().unwrap();
    // What the links between the first host and the relay have done.
    let counts = |out| {
        let [here, relay] = [stage.sites[0], stage.relay.site()];
        if out { stage.lab.counts(here, relay) } else { stage.lab.counts(relay, here) }
    };

    stage.lose(1.0, Traffic::Udp);
    inside[0].send_to(b"lost", to).unwrap();
    await_that(|| counts(true).lost == 1);
    stage.lose(0.0, Traffic::Udp);
    inside[0].send_to(b"behind", to).unwrap();
    assert!(!came_before(&relay, b"lost", b"behind"));

    stage.block_udp(0);
    inside[0].send_to(b"blocked", to).unwrap();
    inside[1].send_to(b"behind", to).unwrap();
    assert!(!came_before(&relay, b"blocked", b"behind"));
    relay.send_to(b"blocked", back).unwrap();
    await_that(|| counts(false).blocked == 1);
    assert!(stage.hosts[0].namespace().run(|| TcpStream::connect(stream)).is_ok());
    stage.lab.change_links(stage.sites[0], stage.relay.site(), |link| link.blocked = false);
    relay.send_to(b"behind", back).unwrap();
    assert!(!came_before(&inside[0], b"blocked", b"behind"));
}

#[test]
fn a_pair_has_its_round_trips_and_its_hosts_punch_through() {
    let Some(_turn) = turn() else { return };
    let stage = Stage::build(&Pair::new(Class::P, Class::P, Timing::NEAR, 14)).unwrap();
    let inside = stage.hosts.each_ref().map(|host| bind(host.namespace(), host.address()));
    let relay = bind(stage.relay.namespace(), stage.relay.v4());
    let seen = [mapped(&inside[0], &relay), mapped(&inside[1], &relay)];
    // The first to arrive finds a NAT that its receiver has opened, because both are sent at once.
    for side in [0, 1] {
        inside[side].send_to(b"punch", seen[1 - side]).unwrap();
    }
    for side in [0, 1] {
        assert_eq!(receive(&inside[side]), (b"punch".to_vec(), seen[1 - side]));
    }
    let round_trip = |outside: &UdpSocket, to: SocketAddr| {
        let begun = Instant::now();
        inside[0].send_to(b"ping", to).unwrap();
        let (_, from) = receive(outside);
        outside.send_to(b"pong", from).unwrap();
        assert_eq!(receive(&inside[0]).0, b"pong");
        begun.elapsed()
    };
    // On a busy machine, some take longer.
    let least = |outside: &UdpSocket, to: SocketAddr| (0..10).map(|_| round_trip(outside, to)).min().unwrap();
    let stun = bind(stage.stuns[1].namespace(), stage.stuns[1].v4());
    let found = [
        2 * least(&relay, relay.local_addr().unwrap()),
        least(&inside[1], seen[1]),
        least(&stun, stun.local_addr().unwrap()),
    ];
    println!("R, D and S are {found:.1?}");
    for (found, asked) in found.into_iter().zip([80, 40, 50].map(Duration::from_millis)) {
        assert!(found >= asked && found < asked + Duration::from_millis(2), "{found:?} for {asked:?}");
    }
}
