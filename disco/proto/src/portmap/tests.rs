//! The exchange with a gateway, packet by packet.

use super::*;
use crate::portmap::PortProtocol::{NatPmp, Pcp, Upnp};

const LOCAL: &str = "192.168.1.7:41641";
const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const EXTERNAL: &str = "203.0.113.9:5000";

fn at(millis: u64) -> Instant {
    Instant::from(Duration::from_millis(millis))
}

fn seconds(seconds: u64) -> Instant {
    at(seconds * 1000)
}

fn v4(text: &str) -> SocketAddrV4 {
    text.parse().expect("an address")
}

fn random() -> Random {
    Random::new([1; 32])
}

fn gateway() -> GatewayConfig {
    GatewayConfig { address: PRIVATE, local: v4(LOCAL) }
}

/// An exchange that has begun at 0.
fn asking() -> PortMap {
    let mut map = PortMap::default();
    map.set_gateway(Some(gateway()), at(0), &mut random());
    map
}

fn packets(map: &mut PortMap) -> Vec<Vec<u8>> {
    let is_packet = |transmit: &Transmit| matches!(transmit, Transmit::Udp { .. });
    map.sent().into_iter().filter(|(transmit, _)| is_packet(transmit)).map(|(_, packet)| packet).collect()
}

/// What is asked for by UPnP-IGD.
fn upnp_requests(map: &mut PortMap) -> Vec<UpnpRequest> {
    let request = |(transmit, packet): (Transmit, Vec<u8>)| match transmit {
        Transmit::Upnp { gateway: asked, request } => {
            assert!(asked == gateway() && packet.is_empty());
            Some(request)
        }
        _ => None,
    };
    map.sent().into_iter().filter_map(request).collect()
}

/// A request for a port.
fn map_request(external: Option<u16>) -> UpnpRequest {
    UpnpRequest::Map { external, lifetime: 7200 }
}

/// An exchange in which the gateway speaks neither of the other protocols and has granted [`EXTERNAL`] by UPnP-IGD at 0.
fn granted_by_upnp() -> PortMap {
    let mut map = asking();
    map.handle_answer(&NO_PCP, at(0));
    map.handle_answer(&NO_NAT_PMP, at(0));
    assert_eq!(upnp_requests(&mut map), [map_request(None)]);
    map.handle_upnp(gateway(), UpnpAnswer::Granted(v4(EXTERNAL)), at(0));
    assert_eq!(map.state(true), PortMapping::Granted { protocol: Upnp, external: v4(EXTERNAL) });
    map
}

/// The answer to a MAP request of PCP.
fn pcp_answer(map: &PortMap, result: u8, lifetime: u32, epoch: u32, external: &str) -> Vec<u8> {
    let external = v4(external);
    let mut answer = vec![2, 0x81, 0, result];
    answer.extend_from_slice(&lifetime.to_be_bytes());
    answer.extend_from_slice(&epoch.to_be_bytes());
    answer.extend_from_slice(&[0; 12]);
    answer.extend_from_slice(&map.nonce);
    answer.extend_from_slice(&[17, 0, 0, 0, 0xa2, 0xa9]);
    answer.extend_from_slice(&external.port().to_be_bytes());
    answer.extend_from_slice(&external.ip().to_ipv6_mapped().octets());
    answer
}

/// The answers of NAT-PMP: the external address, and the port.
fn nat_pmp_answers(lifetime: u32, epoch: u32, external: &str) -> [Vec<u8>; 2] {
    let (external, epoch) = (v4(external), epoch.to_be_bytes());
    let address = [&[0, 0x80, 0, 0][..], &epoch, &external.ip().octets()].concat();
    let [port, lifetime] = [&external.port().to_be_bytes()[..], &lifetime.to_be_bytes()].map(<[u8]>::to_vec);
    [address, [&[0, 0x81, 0, 0][..], &epoch, &[0xa2, 0xa9], &port, &lifetime].concat()]
}

/// What a gateway says that speaks only NAT-PMP, and what one that speaks only PCP.
const NO_PCP: [u8; 8] = [0, 0x81, 0, 1, 0, 0, 0, 9];
const NO_NAT_PMP: [u8; 12] = [2, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];

/// An exchange in which PCP has granted [`EXTERNAL`] for two hours at 0, with an epoch of 1000.
fn granted() -> PortMap {
    let mut map = asking();
    map.handle_answer(&pcp_answer(&map, 0, 7200, 1000, EXTERNAL), at(0));
    assert_eq!(map.external(), Some(v4(EXTERNAL)));
    packets(&mut map);
    map
}

/// An exchange in which NAT-PMP has granted [`EXTERNAL`].
fn granted_by_nat_pmp() -> PortMap {
    let mut map = asking();
    map.handle_answer(&NO_PCP, at(0));
    nat_pmp_answers(7200, 1000, EXTERNAL).iter().for_each(|answer| map.handle_answer(answer, at(0)));
    assert_eq!(map.external(), Some(v4(EXTERNAL)));
    packets(&mut map);
    map
}

/// When packets are sent until `end`, in milliseconds, and the first bytes of each.
fn run(map: &mut PortMap, end: Instant) -> Vec<(u128, Vec<u8>)> {
    let mut all = Vec::new();
    let mut now = at(0);
    loop {
        let passed = now.since(at(0)).as_millis();
        all.extend(packets(map).into_iter().map(|packet| (passed, packet[..2].to_vec())));
        let Some(due) = map.due().filter(|due| *due <= end) else { return all };
        now = due;
        map.handle_timeout(now);
    }
}

#[test]
fn requests_are_as_the_rfcs_have_them() {
    let mut map = asking();
    let sent = map.sent();
    let way = Transmit::Udp {
        src: Some("192.168.1.7".parse().unwrap()),
        dst: "192.168.1.1:5351".parse().unwrap(),
        ttl: None,
    };
    assert!(sent.iter().all(|(transmit, _)| *transmit == way));
    let request = |lifetime: [u8; 4], port: [u8; 2], address: [u8; 4]| {
        let head = [&[2, 1, 0, 0][..], &lifetime, &[0; 10], &[0xff, 0xff, 192, 168, 1, 7]].concat();
        let map = [&map.nonce[..], &[17, 0, 0, 0, 0xa2, 0xa9], &port].concat();
        [head, map, vec![0; 10], vec![0xff, 0xff], address.to_vec()].concat()
    };
    assert_eq!(sent[0].1, request([0, 0, 0x1c, 0x20], [0, 0], [0; 4]));
    assert_eq!(sent[1].1, [0, 0]);
    assert_eq!(sent.len(), 2);
    assert_ne!(map.nonce, [0; 12]);
    let mut renewing = granted();
    renewing.handle_timeout(seconds(3600));
    let renewal = request([0, 0, 0x1c, 0x20], [0x13, 0x88], [203, 0, 113, 9]);
    assert_eq!(packets(&mut renewing), [renewal], "what was granted is suggested");
    renewing.question(seconds(3700));
    let question = [&[2, 0, 0, 0, 0, 0, 0, 0][..], &[0; 10], &[0xff, 0xff, 192, 168, 1, 7]].concat();
    assert_eq!(packets(&mut renewing), [question]);
    renewing.close();
    assert_eq!(packets(&mut renewing), [request([0; 4], [0, 0], [0; 4])], "given back");
    let mut renewing = granted_by_nat_pmp();
    renewing.handle_timeout(seconds(3600));
    let renewal = vec![0, 1, 0, 0, 0xa2, 0xa9, 0x13, 0x88, 0, 0, 0x1c, 0x20];
    assert_eq!(packets(&mut renewing), [vec![0, 0], renewal]);
    renewing.close();
    assert_eq!(packets(&mut renewing), [vec![0, 1, 0, 0, 0xa2, 0xa9, 0, 0, 0, 0, 0, 0]]);
    assert_eq!((renewing.external(), renewing.due()), (None, None));
}

#[test]
fn an_answer_of_pcp_counts_with_the_nonce_and_the_port_of_its_request() {
    let answer = pcp_answer(&asking(), 0, 7200, 9, EXTERNAL);
    // The version, the bit of answers, the operation, the nonce, the protocol and the internal port.
    for byte in [0, 1, 24, 35, 36, 40, 41] {
        let mut map = asking();
        let mut answer = answer.clone();
        answer[byte] ^= 0x40;
        if byte == 1 {
            answer[byte] = 1;
        }
        map.handle_answer(&answer, at(1));
        assert_eq!(map.external(), None, "byte {byte}");
    }
    for len in 0..answer.len() {
        let mut map = asking();
        map.handle_answer(&answer[..len], at(1));
        assert_eq!(map.external(), None, "{len} bytes");
    }
    let mut map = asking();
    map.handle_answer(&[&answer[..], &[0; 8]].concat(), at(1));
    assert_eq!(map.external(), Some(v4(EXTERNAL)), "options that were not asked for are ignored");
    let mut refused = pcp_answer(&asking(), 2, 30, 9, EXTERNAL);
    refused[24] ^= 1;
    let mut map = asking();
    map.handle_answer(&refused, at(1));
    assert!(map.pcp.is_some(), "a refusal is checked as well");
}

#[test]
fn nat_pmp_grants_with_both_answers_for_the_port_of_the_request() {
    let answers = nat_pmp_answers(7200, 9, EXTERNAL);
    for order in [[0, 1], [1, 0]] {
        let mut map = asking();
        map.handle_answer(&NO_PCP, at(1));
        map.handle_answer(&answers[order[0]], at(2));
        assert_eq!(map.external(), None, "one of both");
        map.handle_answer(&answers[order[1]], at(2));
        assert_eq!(map.external(), Some(v4(EXTERNAL)));
        assert_eq!(map.state(true), PortMapping::Granted { protocol: NatPmp, external: v4(EXTERNAL) });
    }
    for (which, other) in [(0, 1), (1, 0)] {
        for len in 0..answers[which].len() {
            let mut map = asking();
            map.handle_answer(&answers[other], at(2));
            map.handle_answer(&answers[which][..len], at(2));
            assert_eq!(map.external(), None, "{len} bytes of {which}");
        }
    }
    let mut map = asking();
    map.handle_answer(&answers[0], at(2));
    let mut elsewhere = answers[1].clone();
    elsewhere[9] ^= 1;
    map.handle_answer(&elsewhere, at(2));
    assert_eq!(map.external(), None, "another internal port");
}

#[test]
fn nat_pmp_is_asked_for_a_port_where_pcp_is_refused_or_silent_and_not_before() {
    let mut map = asking();
    assert_eq!(packets(&mut map).len(), 2);
    map.handle_timeout(at(249));
    assert!(packets(&mut map).is_empty());
    map.handle_answer(&NO_PCP, at(249));
    assert_eq!(packets(&mut map).iter().map(Vec::len).collect::<Vec<_>>(), [2, 12], "at once");
    let mut map = asking();
    packets(&mut map);
    map.handle_timeout(at(250));
    assert_eq!(packets(&mut map).iter().map(Vec::len).collect::<Vec<_>>(), [2, 12]);
    let mut map = granted();
    assert_eq!(run(&mut map, seconds(3599)), [], "PCP has granted");
}

#[test]
fn a_silent_gateway_is_asked_a_few_times_and_again_after_ten_minutes() {
    let mut map = asking();
    assert_eq!(map.state(true), PortMapping::Pending);
    let sent = run(&mut map, seconds(608));
    let by = |first: [u8; 2]| -> Vec<u128> {
        sent.iter().filter(|(_, bytes)| *bytes == first).map(|(at, _)| *at).collect()
    };
    assert_eq!(by([2, 1]), [0, 3000]);
    assert_eq!(by([0, 0]), [0, 250, 750, 1750]);
    assert_eq!(by([0, 1]), [250, 750, 1750]);
    assert_eq!(map.state(true), PortMapping::Silent);
    assert_eq!(map.due(), Some(seconds(609)), "nine seconds, and ten minutes");
    map.handle_timeout(seconds(609));
    assert_eq!((packets(&mut map).len(), map.state(true)), (2, PortMapping::Pending));
}

#[test]
fn a_refusal_is_remembered_and_the_gateway_asked_again_when_it_is_over() {
    for (result, lifetime, pause) in [(2, 60, 60), (7, 0, 30), (8, u32::MAX, 1800), (12, 300, 300)] {
        let mut map = asking();
        map.handle_answer(&NO_NAT_PMP, at(1));
        map.handle_answer(&pcp_answer(&map, result, lifetime, 9, EXTERNAL), at(1000));
        map.handle_upnp(gateway(), UpnpAnswer::Silent, at(1000));
        let state = PortMapping::Refused { protocol: Pcp, result: result.into() };
        assert_eq!((map.state(true), map.due()), (state, Some(seconds(1 + pause))), "{result}");
        packets(&mut map);
        map.handle_timeout(seconds(1 + pause));
        assert_eq!(packets(&mut map).len(), 2);
    }
    // NAT-PMP says for no time for how long.
    let mut map = asking();
    map.handle_answer(&NO_PCP, at(1));
    map.handle_answer(&[0, 0x81, 0, 2, 0, 0, 0, 9], at(1000));
    map.handle_upnp(gateway(), UpnpAnswer::Silent, at(1000));
    let state = PortMapping::Refused { protocol: NatPmp, result: 2 };
    assert_eq!((map.state(true), map.due()), (state, Some(seconds(601))));
    // What PCP refuses, NAT-PMP may grant.
    let mut map = asking();
    map.handle_answer(&pcp_answer(&map, 2, 60, 9, EXTERNAL), at(1));
    nat_pmp_answers(7200, 9, EXTERNAL).iter().for_each(|answer| map.handle_answer(answer, at(2)));
    assert_eq!(map.external(), Some(v4(EXTERNAL)));
}

#[test]
fn each_protocol_may_be_the_only_one() {
    let mut map = asking();
    map.handle_answer(&NO_NAT_PMP, at(1));
    map.handle_answer(&pcp_answer(&map, 0, 7200, 9, EXTERNAL), at(2));
    assert_eq!(map.state(true), PortMapping::Granted { protocol: Pcp, external: v4(EXTERNAL) });
    let mut map = asking();
    map.handle_answer(&NO_NAT_PMP, at(1));
    map.handle_answer(&NO_PCP, at(2));
    map.handle_upnp(gateway(), UpnpAnswer::Silent, at(3));
    assert_eq!(map.state(true), PortMapping::Refused { protocol: NatPmp, result: 1 });
    for (whole, waiting) in [(&NO_PCP[..], Pcp), (&NO_NAT_PMP[..], NatPmp)] {
        for len in 0..whole.len() {
            let mut map = asking();
            map.handle_answer(&whole[..len], at(1));
            let left = if waiting == Pcp { map.pcp } else { map.nat_pmp };
            assert!(left.is_some(), "{len} bytes");
        }
    }
}

#[test]
fn a_lease_is_renewed_from_half_of_its_lifetime_on_and_asked_for_anew_when_it_ends() {
    for (mut map, first) in [(granted(), [2, 1]), (granted_by_nat_pmp(), [0, 1])] {
        let sent = run(&mut map, seconds(7199));
        let renewals: Vec<_> =
            sent.iter().filter(|(_, bytes)| *bytes == first).map(|(at, _)| at / 1000).collect();
        assert_eq!(renewals, [3600, 5400, 6300, 6750, 6975, 7087, 7143, 7171, 7185, 7192, 7196]);
        assert_eq!(map.external(), Some(v4(EXTERNAL)));
        map.handle_timeout(seconds(7200));
        assert_eq!((map.external(), packets(&mut map).len()), (None, 2));
    }
    let mut map = granted();
    map.handle_timeout(seconds(3600));
    map.handle_answer(&pcp_answer(&map, 0, 7200, 4600, "203.0.113.9:6000"), seconds(3601));
    assert_eq!(map.external(), Some(v4("203.0.113.9:6000")), "a gateway may grant another one");
    assert_eq!(map.due(), Some(seconds(7201)));
    // A refusal takes nothing away before the time.
    map.handle_timeout(seconds(7201));
    map.handle_answer(&pcp_answer(&map, 8, 30, 8201, EXTERNAL), seconds(7201));
    assert_eq!(map.external(), Some(v4("203.0.113.9:6000")));
}

#[test]
fn a_gateway_that_has_started_anew_is_asked_for_a_port_at_once() {
    let alive = |epoch: u32| [&[2, 0x80, 0, 0, 0, 0, 0, 0][..], &epoch.to_be_bytes(), &[0; 12]].concat();
    let mut map = granted();
    map.question(seconds(9));
    assert!(packets(&mut map).is_empty(), "it was asked of late");
    map.question(seconds(10));
    packets(&mut map);
    map.handle_answer(&alive(1010), seconds(10));
    assert!(map.lease.is_some());
    map.question(seconds(20));
    packets(&mut map);
    map.handle_answer(&alive(5), seconds(20));
    assert_eq!((map.external(), packets(&mut map).len()), (None, 2));
    map.handle_answer(&pcp_answer(&map, 0, 7200, 5, EXTERNAL), seconds(20));
    assert_eq!(map.external(), Some(v4(EXTERNAL)));

    let mut map = granted_by_nat_pmp();
    map.question(seconds(10));
    packets(&mut map);
    map.handle_answer(&nat_pmp_answers(0, 1010, EXTERNAL)[0], seconds(10));
    assert!(map.lease.is_some() && packets(&mut map).is_empty());
    map.question(seconds(20));
    map.handle_answer(&nat_pmp_answers(0, 1020, "203.0.113.77:1")[0], seconds(20));
    assert_eq!(map.external(), None, "another external address");
    let mut map = granted_by_nat_pmp();
    map.question(seconds(10));
    map.handle_answer(&nat_pmp_answers(0, 3, EXTERNAL)[0], seconds(10));
    assert_eq!(map.external(), None);
}

#[test]
fn upnp_is_used_where_the_others_are_refused_or_silent_and_not_before() {
    let mut map = asking();
    map.handle_timeout(at(499));
    assert_eq!(upnp_requests(&mut map), []);
    map.handle_timeout(at(500));
    assert_eq!(upnp_requests(&mut map), [map_request(None)]);
    map.handle_upnp(gateway(), UpnpAnswer::Granted(v4(EXTERNAL)), at(600));
    assert_eq!(map.external(), Some(v4(EXTERNAL)));
    assert_eq!(run(&mut map, seconds(3599)), [], "nothing else is asked then");
    // Both others refuse: at once. One of them: at its time.
    granted_by_upnp();
    let mut map = asking();
    map.handle_answer(&NO_PCP, at(1));
    assert_eq!(upnp_requests(&mut map), []);
    // Granted by another protocol: never.
    let mut map = granted();
    map.handle_timeout(at(500));
    assert_eq!(upnp_requests(&mut map), []);
}

#[test]
fn a_port_that_comes_by_upnp_when_another_protocol_has_granted_one_is_given_back() {
    let other = v4("203.0.113.9:6000");
    let mut map = asking();
    map.handle_timeout(at(500));
    map.handle_answer(&pcp_answer(&map, 0, 7200, 9, EXTERNAL), at(501));
    map.sent();
    map.handle_upnp(gateway(), UpnpAnswer::Granted(other), at(600));
    assert_eq!(upnp_requests(&mut map), [UpnpRequest::Unmap { external: 6000 }]);
    assert_eq!(map.state(true), PortMapping::Granted { protocol: Pcp, external: v4(EXTERNAL) });
    map.handle_upnp(gateway(), UpnpAnswer::Granted(v4(EXTERNAL)), at(600));
    assert_eq!(upnp_requests(&mut map), [], "it would take the port that PCP has granted");
    // After the end, and for a gateway of before.
    let mut map = asking();
    map.handle_timeout(at(500));
    map.close();
    map.sent();
    map.handle_upnp(gateway(), UpnpAnswer::Granted(other), at(600));
    assert_eq!(
        (map.external(), upnp_requests(&mut map)),
        (None, vec![UpnpRequest::Unmap { external: 6000 }])
    );
    let mut map = asking();
    map.handle_timeout(at(500));
    let next = GatewayConfig { address: Ipv4Addr::new(10, 0, 0, 1), ..gateway() };
    map.set_gateway(Some(next), at(501), &mut Random::new([2; 32]));
    map.handle_timeout(at(1001));
    map.sent();
    map.handle_upnp(gateway(), UpnpAnswer::Granted(other), at(1002));
    assert_eq!(
        (map.external(), upnp_requests(&mut map)),
        (None, vec![UpnpRequest::Unmap { external: 6000 }])
    );
    map.handle_upnp(gateway(), UpnpAnswer::Refused(606), at(1002));
    assert!(map.upnp.is_some(), "the gateway of now is still waited for");
}

#[test]
fn what_upnp_refuses_or_does_not_answer_is_asked_for_again_after_ten_minutes() {
    for (answer, state) in [
        (UpnpAnswer::Refused(718), PortMapping::Refused { protocol: Upnp, result: 718 }),
        (UpnpAnswer::Granted(v4("0.0.0.0:5000")), PortMapping::Refused { protocol: Upnp, result: 501 }),
        (UpnpAnswer::Silent, PortMapping::Silent),
    ] {
        let mut map = asking();
        map.handle_timeout(at(500));
        map.sent();
        map.handle_upnp(gateway(), answer, at(600));
        let given_back = matches!(answer, UpnpAnswer::Granted(_));
        assert_eq!(upnp_requests(&mut map).len(), usize::from(given_back), "of no use");
        assert_eq!(map.state(true), PortMapping::Pending, "the others are waited for");
        run(&mut map, seconds(9));
        assert_eq!((map.state(true), map.due()), (state, Some(seconds(609))));
        map.handle_timeout(seconds(609));
        map.handle_timeout(seconds(609) + UPNP_AFTER);
        assert_eq!(upnp_requests(&mut map), [map_request(None)]);
    }
    // A driver that does not answer is a gateway that does not.
    let mut map = asking();
    map.handle_answer(&NO_PCP, at(0));
    map.handle_answer(&NO_NAT_PMP, at(0));
    map.handle_timeout(at(7999));
    assert_eq!(map.state(true), PortMapping::Pending);
    map.handle_timeout(at(8000));
    assert_eq!(map.state(true), PortMapping::Refused { protocol: Pcp, result: 1 });
    map.handle_upnp(gateway(), UpnpAnswer::Granted(v4(EXTERNAL)), at(8001));
    assert_eq!(map.external(), None, "too late");
}

#[test]
fn a_port_by_upnp_is_asked_for_again_every_hour_and_every_ten_minutes_of_use_and_given_back() {
    let again = [map_request(Some(5000))];
    let mut map = granted_by_upnp();
    map.question(seconds(599));
    assert_eq!(upnp_requests(&mut map), []);
    map.question(seconds(600));
    assert_eq!(upnp_requests(&mut map), again);
    map.handle_upnp(gateway(), UpnpAnswer::Granted(v4(EXTERNAL)), seconds(601));
    assert_eq!(map.due(), Some(seconds(601 + 3600)), "it lasts anew");
    map.handle_timeout(seconds(601 + 3600));
    assert_eq!(upnp_requests(&mut map), again);
    // Neither a refusal nor silence takes it away before its time.
    map.handle_upnp(gateway(), UpnpAnswer::Refused(501), seconds(601 + 3601));
    map.handle_upnp(gateway(), UpnpAnswer::Silent, seconds(601 + 3601));
    assert_eq!(map.external(), Some(v4(EXTERNAL)));
    // A gateway that has started anew, or has another address outside, grants another one.
    map.question(seconds(4900));
    map.sent();
    map.handle_upnp(gateway(), UpnpAnswer::Granted(v4("203.0.113.77:7")), seconds(4901));
    assert_eq!(map.external(), Some(v4("203.0.113.77:7")));
    map.close();
    assert_eq!(upnp_requests(&mut map), [UpnpRequest::Unmap { external: 7 }]);
    let mut map = granted_by_upnp();
    run(&mut map, seconds(7199));
    assert_eq!(map.external(), Some(v4(EXTERNAL)));
    map.handle_timeout(seconds(7200));
    assert_eq!((map.external(), packets(&mut map).len()), (None, 2), "all protocols are asked anew");
}

#[test]
fn what_was_not_asked_for_says_nothing() {
    let mut map = granted();
    let other = pcp_answer(&map, 0, 7200, 1000, "203.0.113.66:6");
    map.handle_answer(&other, at(1));
    map.question(seconds(50));
    map.handle_answer(&other, seconds(60));
    nat_pmp_answers(7200, 9, "203.0.113.66:6").iter().for_each(|answer| map.handle_answer(answer, at(1)));
    map.handle_answer(&[&[2, 0x80][..], &[0; 22]].concat(), seconds(100));
    assert_eq!(map.external(), Some(v4(EXTERNAL)), "again, and too late");
    let mut map = PortMap::default();
    map.handle_answer(&other, at(0));
    assert!(map.external().is_none() && !map.is_gateway("192.168.1.1:5351".parse().unwrap()));
}

#[test]
fn answers_are_those_of_the_gateway_alone() {
    let map = asking();
    for (remote, expected) in [
        ("192.168.1.1:5351", true),
        ("192.168.1.1:5350", false),
        ("192.168.1.2:5351", false),
        ("[::ffff:192.168.1.1]:5351", false),
    ] {
        assert_eq!(map.is_gateway(remote.parse().unwrap()), expected, "{remote}");
    }
    for address in [[203, 0, 113, 1], [100, 64, 0, 1], [127, 0, 0, 1]] {
        let mut map = PortMap::default();
        let gateway = GatewayConfig { address: address.into(), ..gateway() };
        map.set_gateway(Some(gateway), at(0), &mut random());
        assert!(packets(&mut map).is_empty(), "{address:?} is no home router");
        assert_eq!(map.state(true), PortMapping::NoGateway);
    }
}

#[test]
fn a_gateway_without_an_address_of_its_own_has_nothing_to_grant() {
    for external in ["0.0.0.0:5000", "127.0.0.1:5000", "169.254.1.1:5000", "224.0.0.1:5000", "203.0.113.9:0"]
    {
        let mut map = asking();
        map.handle_answer(&NO_NAT_PMP, at(1));
        map.handle_answer(&pcp_answer(&map, 0, 7200, 9, external), at(1));
        assert_eq!(map.external(), None, "{external}");
        map.handle_upnp(gateway(), UpnpAnswer::Silent, at(2));
        assert_eq!(map.state(true), PortMapping::Refused { protocol: Pcp, result: 7 });
    }
    let mut map = asking();
    map.handle_answer(&pcp_answer(&map, 0, 7200, 9, "10.0.0.2:5000"), at(1));
    let inner = PortMapping::Inner { protocol: Pcp, external: v4("10.0.0.2:5000") };
    assert_eq!(map.state(false), inner, "of use behind the same NAT");
}

#[test]
fn another_network_is_asked_and_the_gateway_of_before_gets_its_port_back() {
    let mut map = granted();
    let nonce = map.nonce;
    map.set_gateway(Some(gateway()), seconds(1), &mut random());
    assert!(packets(&mut map).is_empty(), "the same one");
    // The address of this host is among others than before.
    let interfaces = [SocketAddr::V4(v4(LOCAL)), "[2001:db8::1]:41641".parse().unwrap()];
    map.move_network(&interfaces, seconds(1));
    assert_eq!((map.external(), packets(&mut map).len(), map.nonce), (None, 2, nonce));
    map.handle_answer(&pcp_answer(&map, 0, 7200, 1001, EXTERNAL), seconds(1));

    let next = GatewayConfig { address: Ipv4Addr::new(10, 0, 0, 1), ..gateway() };
    map.set_gateway(Some(next), seconds(2), &mut Random::new([2; 32]));
    let sent = map.sent();
    let to = |transmit: &Transmit| matches!(transmit, Transmit::Udp { dst, .. } if dst.ip() == IpAddr::V4(next.address));
    assert_eq!(sent.iter().map(|(transmit, _)| to(transmit)).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(sent[0].1[4..8], [0; 4], "given back");
    assert_eq!(map.external(), None);
    assert_ne!(map.nonce, nonce);
    // The address by which the gateway knows this host is gone, and the gateway with it.
    map.handle_answer(&pcp_answer(&map, 0, 7200, 5, EXTERNAL), seconds(2));
    map.move_network(&["10.9.9.9:41641".parse().unwrap()], seconds(3));
    assert_eq!((map.external(), packets(&mut map).len(), map.due()), (None, 0, None));
}
