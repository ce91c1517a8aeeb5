//! Answers to requests of every dialect, read by stun-rs, a complete STUN codec written by others.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use stun_rs::attributes::discovery::{OtherAddress, ResponseOrigin};
use stun_rs::attributes::stun::{MappedAddress, XorMappedAddress};
use stun_rs::methods::BINDING;
use stun_rs::{DecoderContextBuilder, MessageClass, MessageDecoderBuilder, StunMessage};
use towpath_stun_proto::{
    ANSWER_MAX_LEN, Answer, AnswerKind, AskedOrigin, ChangeRequest, DISCOVERY_REQUEST_LEN, Dialect, NotStun,
    Origins, REQUEST_LEN, REQUEST_MAX_LEN, Request, Response, TransactionId, write_discovery_request,
    write_request,
};

const TRANSACTION: [u8; 12] = [7; 12];
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const MAPPED_ADDRESS: u16 = 0x0001;
const RESPONSE_ADDRESS: u16 = 0x0002;
const CHANGE_REQUEST: u16 = 0x0003;
const SOURCE_ADDRESS: u16 = 0x0004;
const CHANGED_ADDRESS: u16 = 0x0005;
const USERNAME: u16 = 0x0006;
const PASSWORD: u16 = 0x0007;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const REFLECTED_FROM: u16 = 0x000b;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const PADDING: u16 = 0x0026;
const RESPONSE_PORT: u16 = 0x0027;
/// Of no standard, and to be understood.
const FOREIGN: u16 = 0x7f01;
const SOFTWARE: u16 = 0x8022;

/// A Binding request with these attributes.
fn request(cookie: [u8; 4], attributes: &[(u16, &[u8])], fingerprint: bool) -> Vec<u8> {
    let mut out = vec![0, 1, 0, 0];
    out.extend(cookie);
    out.extend(TRANSACTION);
    let append = |out: &mut Vec<u8>, kind: u16, value: &[u8]| {
        out.extend(kind.to_be_bytes());
        out.extend((value.len() as u16).to_be_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
    };
    for (kind, value) in attributes {
        append(&mut out, *kind, value);
    }
    let length = out.len() - 20 + if fingerprint { 8 } else { 0 };
    out[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    if fingerprint {
        let value = crc32fast::hash(&out) ^ 0x5354_554e;
        append(&mut out, 0x8028, &value.to_be_bytes());
    }
    out
}

fn standard(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    request(COOKIE, attributes, false)
}

fn answer(datagram: &[u8], client: SocketAddr, origin: Option<AskedOrigin<'_>>) -> (Answer, Vec<u8>) {
    let mut out = [0xff; ANSWER_MAX_LEN];
    let answer = Request::parse(datagram).unwrap().answer(&mut out, client, origin).unwrap();
    (answer, out[..answer.len].to_vec())
}

/// Decodes all of a message, and its FINGERPRINT if it has one.
fn decode(bytes: &[u8]) -> StunMessage {
    let context = DecoderContextBuilder::default().with_validation().build();
    let (message, len) =
        MessageDecoderBuilder::default().with_context(context).build().decode(bytes).unwrap();
    assert_eq!(len, bytes.len(), "the length field is right");
    assert_eq!(*message.transaction_id().as_bytes(), TRANSACTION);
    assert_eq!(message.method(), BINDING);
    message
}

fn has_fingerprint(message: &StunMessage) -> bool {
    message.attributes().last().is_some_and(|attribute| attribute.is_fingerprint())
}

/// The attributes that a refusal names.
fn refused(bytes: &[u8]) -> Vec<u16> {
    let message = decode(bytes);
    assert_eq!(message.class(), MessageClass::ErrorResponse);
    let code = message.get::<stun_rs::attributes::stun::ErrorCode>().unwrap().as_error_code().unwrap();
    assert_eq!(code.error_code().error_code(), 420);
    let list = message.get::<stun_rs::attributes::stun::UnknownAttributes>().unwrap();
    list.as_unknown_attributes().unwrap().attributes().to_vec()
}

fn ipv4() -> SocketAddr {
    "192.0.2.1:32853".parse().unwrap()
}

fn ipv6() -> SocketAddr {
    "[2001:db8::7]:40000".parse().unwrap()
}

fn origins(client: SocketAddr) -> Origins {
    let [first, second] = match client {
        SocketAddr::V4(_) => ["198.51.100.1:3478", "198.51.100.2:3479"],
        SocketAddr::V6(_) => ["[2001:db8::1]:3478", "[2001:db8::2]:3479"],
    };
    Origins::spanned_by(first.parse().unwrap(), second.parse().unwrap()).unwrap()
}

#[test]
fn a_bare_request_is_told_its_address() {
    for (client, len) in [(ipv4(), 32), (ipv6(), 44)] {
        let (answer, bytes) = answer(&standard(&[]), client, None);
        assert_eq!(
            (answer.kind, answer.change, answer.port),
            (AnswerKind::Standard, ChangeRequest::NONE, None)
        );
        assert_eq!(bytes.len(), len);
        let message = decode(&bytes);
        assert_eq!(message.class(), MessageClass::SuccessResponse);
        assert_eq!(message.attributes().len(), 1);
        let mapped = message.get::<XorMappedAddress>().unwrap().as_xor_mapped_address().unwrap();
        assert_eq!(*mapped.socket_address(), client);
    }
}

#[test]
fn a_fingerprint_is_answered_with_one() {
    for (client, origin) in [(ipv4(), false), (ipv6(), false), (ipv4(), true), (ipv6(), true)] {
        let origins = origins(client);
        let origin = origin.then_some(AskedOrigin { origins: &origins, number: 0 });
        for (fingerprint, attributes) in [(false, &[][..]), (true, &[]), (true, &[(FOREIGN, &[0; 4][..])])] {
            let (_, bytes) = answer(&request(COOKIE, attributes, fingerprint), client, origin);
            assert_eq!(has_fingerprint(&decode(&bytes)), fingerprint);
        }
    }
    let wrong = |at: usize| {
        let mut datagram = request(COOKIE, &[], true);
        datagram[at] ^= 1;
        Request::parse(&datagram).unwrap_err()
    };
    assert_eq!(wrong(27), NotStun::WrongFingerprint);
    assert_eq!(wrong(10), NotStun::WrongFingerprint, "of another transaction");
}

#[test]
fn a_client_of_rfc_3489_is_told_its_address_in_clear() {
    let cookie = [1, 2, 3, 4];
    let (answer, bytes) = answer(&request(cookie, &[], false), ipv4(), None);
    assert_eq!(answer.kind, AnswerKind::Classic);
    let expected = [
        &[0x01, 0x01, 0, 12][..],
        &cookie,
        &TRANSACTION,
        &[0x00, 0x01, 0, 8, 0, 1],
        &32853_u16.to_be_bytes(),
        &[192, 0, 2, 1],
    ];
    assert_eq!(bytes, expected.concat());

    // RFC 5389 section 12.2: the two that let a client redirect answers are refused.
    for kind in [RESPONSE_ADDRESS, CHANGE_REQUEST] {
        let (answer, bytes) = self::answer(&request(cookie, &[(kind, &[0, 0, 0, 2])], false), ipv4(), None);
        assert_eq!(answer.kind, AnswerKind::Refusal);
        assert_eq!(bytes[28..], classic_list(&[kind, kind]));
    }
}

/// UNKNOWN-ATTRIBUTES as RFC 3489 has it, where lengths are multiples of four.
fn classic_list(kinds: &[u16]) -> Vec<u8> {
    let length = u8::try_from(2 * kinds.len()).unwrap();
    assert_eq!(length % 4, 0);
    kinds.iter().fold(vec![0x00, 0x0a, 0, length], |list, kind| [list, kind.to_be_bytes().to_vec()].concat())
}

/// RFC 3489 section 11.2.10.
#[test]
fn an_odd_list_of_a_classic_refusal_repeats_one_of_its_attributes() {
    for count in 1..=5 {
        let kinds: Vec<u16> = (0x7000..).take(count).collect();
        let attributes: Vec<_> = kinds.iter().map(|kind| (*kind, &[][..])).collect();
        for fingerprint in [false, true] {
            let (answer, bytes) = answer(&request([1, 2, 3, 4], &attributes, fingerprint), ipv4(), None);
            assert_eq!(answer.kind, AnswerKind::Refusal);
            let repeated = if count % 2 == 1 { &kinds[..1] } else { &[] };
            let list = classic_list(&[&kinds[..], repeated].concat());
            assert_eq!(bytes[28..28 + list.len()], list, "{count}");
            assert_eq!(bytes.len(), 28 + list.len() + if fingerprint { 8 } else { 0 });
            let (_, bytes) = self::answer(&request(COOKIE, &attributes, fingerprint), ipv4(), None);
            assert_eq!(refused(&bytes), kinds, "RFC 8489 has padding");
        }
    }
}

/// stuntman's client, vovida's and jstun send it with every request.
#[test]
fn a_change_request_without_a_flag_asks_for_nothing() {
    for client in [ipv4(), ipv6()] {
        let origins = origins(client);
        let discovery = Some(AskedOrigin { origins: &origins, number: 0 });
        // Bits without a meaning are no flags.
        for flags in [[0; 4], [0xff, 0xff, 0xff, 0xf9]] {
            for (cookie, origin, kind) in [
                (COOKIE, None, AnswerKind::Standard),
                ([1, 2, 3, 4], None, AnswerKind::Classic),
                (COOKIE, discovery, AnswerKind::Discovery),
                ([1, 2, 3, 4], discovery, AnswerKind::Discovery),
            ] {
                let (with, bytes) =
                    answer(&request(cookie, &[(CHANGE_REQUEST, &flags)], false), client, origin);
                assert_eq!((with.kind, with.change), (kind, ChangeRequest::NONE));
                let without = request(cookie, &[(SOFTWARE, &[0; 4])], false);
                assert_eq!(bytes, answer(&without, client, origin).1, "as without it");
            }
        }
        let both = standard(&[(CHANGE_REQUEST, &[0; 4]), (FOREIGN, &[])]);
        assert_eq!(refused(&answer(&both, client, None).1), [FOREIGN]);
    }
}

/// They mean something to the peer of a connectivity check, or in a response, and nothing to a server.
#[test]
fn attributes_that_ask_for_nothing_are_ignored() {
    for kind in [SOURCE_ADDRESS, CHANGED_ADDRESS, PASSWORD, REFLECTED_FROM, PRIORITY, USE_CANDIDATE] {
        for (cookie, expected) in [(COOKIE, AnswerKind::Standard), ([1, 2, 3, 4], AnswerKind::Classic)] {
            let (answer, _) = answer(&request(cookie, &[(kind, &[0; 8])], false), ipv4(), None);
            assert_eq!(answer.kind, expected, "{kind:#06x}");
        }
    }
}

/// RFC 3489 section 8.1, for each of the four origins.
#[test]
fn clients_of_rfc_3489_discover_what_their_nat_does() {
    let cookie = [1, 2, 3, 4];
    for client in [ipv4(), ipv6()] {
        let origins = origins(client);
        for (number, asked) in origins.addresses().iter().enumerate() {
            let origin = AskedOrigin { origins: &origins, number };
            let both = ChangeRequest { address: true, port: true };
            let other = origins.addresses()[both.of(number)];
            assert!(other.ip() != asked.ip() && other.port() != asked.port());
            for (flags, address, port) in
                [(0, false, false), (2, false, true), (4, true, false), (6, true, true)]
            {
                let datagram = request(cookie, &[(CHANGE_REQUEST, &[0, 0, 0, flags])], false);
                let (answer, bytes) = answer(&datagram, client, Some(origin));
                let change = ChangeRequest { address, port };
                assert_eq!((answer.kind, answer.change), (AnswerKind::Discovery, change));
                let source = origins.addresses()[change.of(number)];
                let expected = [(MAPPED_ADDRESS, client), (SOURCE_ADDRESS, source), (CHANGED_ADDRESS, other)];
                let expected: Vec<u8> = expected.iter().flat_map(|(kind, at)| in_clear(*kind, *at)).collect();
                assert_eq!(bytes[..2], [1, 1]);
                assert_eq!(bytes[20..], expected);
            }
            let bare = answer(&request(cookie, &[], false), client, Some(origin)).1;
            assert_eq!(bare.len(), if client.is_ipv4() { 56 } else { 92 }, "within the bound");
        }
        let datagram = request(cookie, &[(RESPONSE_PORT, &[1, 2])], false);
        let (_, bytes) = answer(&datagram, client, Some(AskedOrigin { origins: &origins, number: 0 }));
        assert_eq!(bytes[28..], classic_list(&[RESPONSE_PORT; 2]), "RFC 3489 has none");
    }
}

/// An address attribute that is not XORed.
fn in_clear(kind: u16, address: SocketAddr) -> Vec<u8> {
    let (family, ip) = match address.ip() {
        std::net::IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        std::net::IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let length = u8::try_from(4 + ip.len()).unwrap();
    let [high, low] = address.port().to_be_bytes();
    [&kind.to_be_bytes()[..], &[0, length, 0, family, high, low], &ip].concat()
}

#[test]
fn without_a_cookie_only_what_is_to_the_letter_is_a_request() {
    let datagram = request([1, 2, 3, 4], &[(USERNAME, b"user")], false);
    assert_eq!(Request::parse(&datagram).unwrap().dialect(), Dialect::Classic);
    for (at, value) in [(0, 0x40), (0, 1), (1, 2), (2, 1), (3, 0)] {
        let mut changed = datagram.clone();
        changed[at] = value;
        assert_eq!(Request::parse(&changed).unwrap_err(), NotStun::BadHeader, "byte {at} = {value}");
    }
}

#[test]
fn what_must_be_understood_and_is_not_is_refused_and_listed() {
    let refusal = |attributes: &[(u16, &[u8])]| {
        let (answer, bytes) = answer(&standard(attributes), ipv6(), None);
        if answer.kind == AnswerKind::Refusal { refused(&bytes) } else { Vec::new() }
    };
    let none: Vec<u16> = Vec::new();
    assert_eq!(refusal(&[(FOREIGN, &[0; 4])]), [FOREIGN]);
    assert_eq!(refusal(&[(0x7fff, &[]), (SOFTWARE, b"x"), (FOREIGN, &[])]), [0x7fff, FOREIGN]);
    assert_eq!(
        refusal(&[(CHANGE_REQUEST, &[0, 0, 0, 4]), (RESPONSE_PORT, &[1, 2])]),
        [CHANGE_REQUEST, RESPONSE_PORT]
    );
    assert_eq!(refusal(&[(0x8000, &[]), (0xffff, &[])]), none, "these need not be understood");
    assert_eq!(refusal(&[(USERNAME, b"user"), (MESSAGE_INTEGRITY, &[0; 20])]), none, "these are known");
    assert_eq!(refusal(&[(MESSAGE_INTEGRITY, &[0; 20]), (FOREIGN, &[])]), none, "it is not protected");
    assert_eq!(refusal(&[(FOREIGN, &[]), (MESSAGE_INTEGRITY, &[0; 20])]), [FOREIGN]);
}

#[test]
fn the_longest_refusal_fits() {
    for fingerprint in [false, true] {
        let room = (REQUEST_MAX_LEN - 20 - if fingerprint { 8 } else { 0 }) / 4;
        let kinds: Vec<u16> = (0x7000..).take(room).collect();
        let attributes: Vec<_> = kinds.iter().map(|kind| (*kind, &[][..])).collect();
        let datagram = request(COOKIE, &attributes, fingerprint);
        assert_eq!(datagram.len(), REQUEST_MAX_LEN);
        let (_, bytes) = answer(&datagram, ipv6(), None);
        assert_eq!(refused(&bytes), kinds);
    }
}

/// Table 1 of RFC 5780 section 6.1, for each of the four origins.
#[test]
fn answers_come_from_the_origin_that_was_asked_for() {
    for client in [ipv4(), ipv6()] {
        let origins = origins(client);
        let [first, _, _, second] = *origins.addresses();
        for (asked, at) in origins.addresses().iter().enumerate() {
            for (flags, address, port) in
                [(0, false, false), (2, false, true), (4, true, false), (6, true, true)]
            {
                let origin = AskedOrigin { origins: &origins, number: asked };
                let datagram = standard(&[(CHANGE_REQUEST, &[0, 0, 0, flags])]);
                let (answer, bytes) = answer(&datagram, client, Some(origin));
                assert_eq!(answer.kind, AnswerKind::Discovery);
                assert_eq!(answer.change, ChangeRequest { address, port });

                let not = |this: SocketAddr| if this.ip() == first.ip() { second.ip() } else { first.ip() };
                let not_port = |this: SocketAddr| first.port() + second.port() - this.port();
                let ip = if address { not(*at) } else { at.ip() };
                let expected = SocketAddr::new(ip, if port { not_port(*at) } else { at.port() });
                assert_eq!(origins.addresses()[answer.change.of(asked)], expected);
                let message = decode(&bytes);
                let origin = message.get::<ResponseOrigin>().unwrap().as_response_origin().unwrap();
                assert_eq!(*origin.socket_address(), expected);
                let other = message.get::<OtherAddress>().unwrap().as_other_address().unwrap();
                assert_eq!(*other.socket_address(), SocketAddr::new(not(*at), not_port(*at)));
                let xored = message.get::<XorMappedAddress>().unwrap().as_xor_mapped_address().unwrap();
                assert_eq!(*xored.socket_address(), client);
            }
        }
    }
}

#[test]
fn discovery_answers_have_mapped_address_where_the_bound_allows() {
    for (client, attributes, expected) in
        [(ipv4(), &[][..], true), (ipv6(), &[], false), (ipv6(), &[(SOFTWARE, &b"12345678"[..])], true)]
    {
        let origins = origins(client);
        let (_, bytes) =
            answer(&standard(attributes), client, Some(AskedOrigin { origins: &origins, number: 0 }));
        let message = decode(&bytes);
        let mapped = message.get::<MappedAddress>().map(|a| *a.as_mapped_address().unwrap().socket_address());
        assert_eq!(mapped, expected.then_some(client));
    }
}

#[test]
fn a_response_port_is_heeded_and_padding_refused() {
    let origins = origins(ipv4());
    let origin = Some(AskedOrigin { origins: &origins, number: 0 });
    for value in [&[0x12, 0x34][..], &[0x12, 0x34, 0, 0]] {
        let (answer, _) = answer(&standard(&[(RESPONSE_PORT, value)]), ipv4(), origin);
        assert_eq!(answer.port.map(u16::from), Some(0x1234));
    }
    for (kind, value) in [
        (RESPONSE_PORT, &[0, 0][..]),
        (RESPONSE_PORT, &[1]),
        (CHANGE_REQUEST, &[]),
        (CHANGE_REQUEST, &[0; 8]),
    ] {
        let parsed = Request::parse(&standard(&[(kind, value)])).map(|_| ());
        assert_eq!(parsed, Err(NotStun::MalformedAttributes), "{kind:#x} {value:?}");
    }
    let padded = standard(&[(CHANGE_REQUEST, &[0, 0, 0, 6]), (PADDING, &[0; 1000])]);
    let (answer, bytes) = answer(&padded, ipv4(), origin);
    assert_eq!((answer.change, refused(&bytes)), (ChangeRequest::NONE, vec![PADDING]));
}

/// RFC 8489 section 14.5: an attacker on the path could have inserted it.
#[test]
fn what_stands_behind_the_integrity_is_not_heeded() {
    let origins = origins(ipv4());
    let origin = Some(AskedOrigin { origins: &origins, number: 0 });
    let (wish, port) = ((CHANGE_REQUEST, &[0, 0, 0, 6][..]), (RESPONSE_PORT, &[0x12, 0x34][..]));
    let integrity = (MESSAGE_INTEGRITY, &[0; 20][..]);
    let (before, _) = answer(&standard(&[wish, port, integrity]), ipv4(), origin);
    assert_eq!((before.change, before.port.is_some()), (ChangeRequest { address: true, port: true }, true));
    let (behind, _) = answer(&standard(&[integrity, wish, port]), ipv4(), origin);
    assert_eq!((behind.kind, behind.change, behind.port), (AnswerKind::Discovery, ChangeRequest::NONE, None));
}

/// Tailscale's clients expect nothing but their address, wherever they ask.
#[test]
fn clients_of_tailscale_get_the_same_answer_from_every_origin() {
    let mut datagram = [0; REQUEST_LEN];
    write_request(&mut datagram, TransactionId(TRANSACTION));
    for client in [ipv4(), ipv6()] {
        let origins = origins(client);
        let (plain, bytes) = answer(&datagram, client, None);
        assert_eq!(plain.kind, AnswerKind::Tailscale);
        assert_eq!(
            answer(&datagram, client, Some(AskedOrigin { origins: &origins, number: 3 })),
            (plain, bytes)
        );
    }
}

#[test]
fn origins_differ_in_address_and_port() {
    let spanned = |first: &str, second: &str| {
        Origins::spanned_by(first.parse().unwrap(), second.parse().unwrap())
            .map(|origins| *origins.addresses())
    };
    let expected = ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "192.0.2.2:2"];
    assert_eq!(spanned("192.0.2.1:1", "192.0.2.2:2"), Some(expected.map(|a| a.parse().unwrap())));
    for second in ["192.0.2.1:2", "192.0.2.2:1", "[2001:db8::1]:2"] {
        assert_eq!(spanned("192.0.2.1:1", second), None, "{second}");
    }
}

fn attribute() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let kind = prop_oneof![
        Just(CHANGE_REQUEST),
        Just(RESPONSE_PORT),
        Just(USERNAME),
        Just(MESSAGE_INTEGRITY),
        Just(SOFTWARE),
        any::<u16>(),
    ];
    prop_oneof![
        (kind, vec(any::<u8>(), 0..9)),
        any::<[u8; 4]>().prop_map(|flags| (CHANGE_REQUEST, flags.to_vec())),
        any::<[u8; 2]>().prop_map(|port| (RESPONSE_PORT, port.to_vec())),
        Just((SOFTWARE, b"tailnode".to_vec())),
    ]
}

/// Bytes of IP and UDP headers and the message.
fn on_wire(client: SocketAddr, message: usize) -> usize {
    message + if client.is_ipv4() { 28 } else { 48 }
}

proptest! {
    /// No request of any kind is answered with more than 1.5 times its bytes on the wire, 2.1 with RFC 5780, and none
    /// that is well-formed goes without an answer for that.
    #[test]
    fn no_answer_amplifies(
        classic: bool,
        attributes in vec(attribute(), 0..6),
        fingerprint: bool,
        is_ipv4: bool,
        asked in prop::option::of(0..4_usize),
    ) {
        let attributes: Vec<_> = attributes.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
        let datagram = request(if classic { [9; 4] } else { COOKIE }, &attributes, fingerprint);
        let client = if is_ipv4 { ipv4() } else { ipv6() };
        let origins = origins(client);
        let origin = asked.map(|asked| AskedOrigin { origins: &origins, number: asked });
        if let Ok(request) = Request::parse(&datagram) {
            let mut out = [0; ANSWER_MAX_LEN];
            let answer = request.answer(&mut out, client, origin).unwrap();
            let (asked_len, answer_len) = (on_wire(client, datagram.len()), on_wire(client, answer.len));
            let tenths = if answer.kind == AnswerKind::Discovery { 21 } else { 15 };
            prop_assert!(10 * answer_len <= tenths * asked_len, "{answer_len} for {asked_len}, {answer:?}");
            prop_assert!(origin.is_some() || answer.kind != AnswerKind::Discovery);
            if !classic {
                decode(&out[..answer.len]);
            }
        }
    }

    #[test]
    fn noise_never_panics(mut noise in vec(any::<u8>(), 0..200), cookie: bool) {
        if let (true, Some(header)) = (cookie, noise.first_chunk_mut::<8>()) {
            *header = [0, 1, header[2], header[3], 0x21, 0x12, 0xa4, 0x42];
        }
        if let Ok(request) = Request::parse(&noise) {
            let _ = request.answer(&mut [0; ANSWER_MAX_LEN], ipv6(), None);
        }
    }
}

#[test]
fn a_client_of_behaviour_discovery_is_answered_from_where_it_asks_and_told_the_other_address() {
    let client: SocketAddr = "192.0.2.1:41641".parse().unwrap();
    let origins = origins(client);
    let asked = AskedOrigin { origins: &origins, number: 0 };
    for (address, port) in [(false, false), (false, true), (true, true)] {
        let change = ChangeRequest { address, port };
        let mut request = [0; DISCOVERY_REQUEST_LEN];
        write_discovery_request(&mut request, TransactionId([7; 12]), change);
        let request = Request::parse(&request).unwrap();
        let mut out = [0; ANSWER_MAX_LEN];
        let answer = request.answer(&mut out, client, Some(asked)).expect("it does not amplify");
        assert_eq!(answer.change, change);
        let response = Response::parse(&out[..answer.len]).unwrap();
        let expected = Response {
            transaction: TransactionId([7; 12]),
            mapped: client,
            other: Some(origins.addresses()[3]),
        };
        assert_eq!(response, expected);
    }
}
