//! Golden vectors, and everything that is one step away from them.

use std::net::SocketAddr;

use towpath_stun_proto::{
    Dialect, NotStun, REQUEST_LEN, REQUEST_MAX_LEN, RESPONSE_MAX_LEN, Request, Response, ResponseError,
    TransactionId, write_request, write_response,
};

/// Bytes of the golden vector called `name`.
fn vector(name: &str) -> Vec<u8> {
    let line = include_str!("../vectors/stun.txt")
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .find(|(key, _)| *key == name);
    let (_, hex) = line.unwrap_or_else(|| panic!("no vector called {name}"));
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn transaction() -> TransactionId {
    TransactionId(vector("transaction_id").try_into().unwrap())
}

fn mapped() -> SocketAddr {
    "192.0.2.1:32853".parse().unwrap()
}

fn response_to(client: &str) -> Vec<u8> {
    let mut out = [0xff; RESPONSE_MAX_LEN];
    let len = write_response(&mut out, transaction(), client.parse().unwrap());
    out[..len].to_vec()
}

/// `message` with `change` applied and the last eight bytes replaced by a FINGERPRINT of the rest.
fn refingerprinted(message: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut changed = message[..message.len() - 8].to_vec();
    change(&mut changed);
    let value = crc32fast::hash(&changed) ^ 0x5354_554e;
    changed.extend([0x80, 0x28, 0, 4]);
    changed.extend(value.to_be_bytes());
    changed
}

#[test]
fn request_is_written_as_clients_write_it() {
    let mut out = [0xff; REQUEST_LEN];
    write_request(&mut out, transaction());
    assert_eq!(out.as_slice(), vector("binding_request"));
}

#[test]
fn request_is_parsed() {
    let golden = vector("binding_request");
    let request = Request::parse(&golden).unwrap();
    assert_eq!((request.dialect(), request.transaction()), (Dialect::Tailscale, transaction()));
}

/// Whether a datagram is a request of Tailscale's dialect.
fn is_tailscale(datagram: &[u8]) -> bool {
    dialect(datagram) == Ok(Dialect::Tailscale)
}

fn dialect(datagram: &[u8]) -> Result<Dialect, NotStun> {
    Request::parse(datagram).map(|request| request.dialect())
}

#[test]
fn ipv4_clients_get_family_1_also_when_mapped() {
    assert_eq!(response_to("192.0.2.1:32853"), vector("binding_response_ipv4"));
    assert_eq!(response_to("[::ffff:192.0.2.1]:32853"), vector("binding_response_ipv4"));
}

/// The address and transaction of the RFC 5769 section 2.3 sample.
#[test]
fn ipv6_clients_get_family_2() {
    let transaction = TransactionId(*b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae");
    let client = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
    let mut out = [0xff; RESPONSE_MAX_LEN];
    assert_eq!(write_response(&mut out, transaction, client), RESPONSE_MAX_LEN);
    assert_eq!(out[..4], [0x01, 0x01, 0x00, 0x18]);
    let attribute = b"\x00\x20\x00\x14\x00\x02\xa1\x47\
        \x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9";
    assert_eq!(out[20..], *attribute);
    assert_eq!(Response::parse(&out), Ok(Response { transaction, mapped: client, other: None }));
}

#[test]
fn responses_are_parsed_and_unmapped() {
    let expected = Ok(Response { transaction: transaction(), mapped: mapped(), other: None });
    assert_eq!(Response::parse(&vector("binding_response_ipv4")), expected);
    assert_eq!(Response::parse(&vector("binding_response_ipv4_mapped")), expected);

    let mut trailing = vector("binding_response_ipv4");
    trailing.extend(b"bytes behind the stated length");
    assert_eq!(Response::parse(&trailing), expected);

    let mut draft_number = vector("binding_response_ipv4");
    draft_number[20] = 0x80;
    assert_eq!(Response::parse(&draft_number), expected);
}

#[test]
fn mapped_address_is_only_the_fallback() {
    let plain = b"\x00\x01\x00\x08\x00\x01\x10\x92\xcb\x00\x71\x07";
    let mut response = vector("binding_response_ipv4");
    response[3] += plain.len() as u8;
    response.splice(20..20, *plain);
    assert_eq!(Response::parse(&response).unwrap().mapped, mapped());

    response.truncate(20 + plain.len());
    response[3] = plain.len() as u8;
    assert_eq!(Response::parse(&response).unwrap().mapped, "203.0.113.7:4242".parse().unwrap());
}

#[test]
fn no_truncation_is_answered() {
    let golden = vector("binding_request");
    for len in 0..golden.len() {
        assert!(Request::parse(&golden[..len]).is_err(), "{len} bytes");
    }
}

/// FINGERPRINT covers every byte in front of it and is compared itself. Only where the change hides it, as another type or
/// as the end of SOFTWARE, is there nothing to compare: what remains is a request of RFC 8489.
#[test]
fn no_single_byte_change_goes_unnoticed() {
    const HIDES: [usize; 3] = [23, 32, 33];
    let golden = vector("binding_request");
    for at in 0..golden.len() {
        for value in 0..=u8::MAX {
            let mut changed = golden.clone();
            changed[at] = value;
            let answered = match dialect(&changed) {
                Ok(Dialect::Tailscale) => value == golden[at],
                Ok(Dialect::Standard) => value != golden[at] && HIDES.contains(&at),
                Ok(Dialect::Classic) => false,
                Err(_) => value != golden[at],
            };
            assert!(answered, "byte {at} = {value:#04x}");
        }
    }
}

#[test]
fn each_rule_has_its_reason() {
    let golden = vector("binding_request");
    let with = |change: fn(&mut Vec<u8>)| dialect(&refingerprinted(&golden, change));

    // One byte from Tailscale's dialect is RFC 8489.
    assert_eq!(with(|_| {}), Ok(Dialect::Tailscale));
    assert_eq!(with(|m| m[24] ^= 1), Ok(Dialect::Standard));
    assert_eq!(with(|m| m[23] = 7), Ok(Dialect::Standard));
    assert_eq!(with(|m| m[21] = 0x23), Ok(Dialect::Standard));

    assert_eq!(Request::parse(&golden[..19]), Err(NotStun::TooShort));
    assert_eq!(Request::parse(&vec![0; REQUEST_MAX_LEN + 1]), Err(NotStun::TooLong));
    assert_eq!(with(|m| m[0] |= 0x80), Err(NotStun::BadHeader));
    assert_eq!(with(|m| m[7] ^= 1), Ok(Dialect::Classic));
    assert_eq!(with(|m| m[1] = 0x03), Err(NotStun::NotBindingRequest));
    assert_eq!(with(|m| m[0] = 0x01), Err(NotStun::NotBindingRequest));
    assert_eq!(with(|m| m[23] = 0xff), Err(NotStun::MalformedAttributes));
    assert_eq!(with(|m| (m[3], m[7]) = (0, 0)), Err(NotStun::BadHeader), "no cookie, and not to the letter");
    assert_eq!(Request::parse(&golden[..20]), Err(NotStun::MalformedAttributes), "the length field is wrong");
    let mut behind_fingerprint = [golden.as_slice(), &[0xc0, 0x01, 0, 0]].concat();
    behind_fingerprint[3] += 4;
    assert_eq!(Request::parse(&behind_fingerprint), Err(NotStun::MisplacedFingerprint));
    let mut short_fingerprint = golden.clone();
    short_fingerprint[35] = 3;
    assert_eq!(Request::parse(&short_fingerprint), Err(NotStun::WrongFingerprint));
    assert_eq!(Request::parse(&[&golden[..39], &[golden[39] ^ 1]].concat()), Err(NotStun::WrongFingerprint));
}

#[test]
fn length_field_is_not_consulted_and_further_attributes_are_allowed() {
    let golden = vector("binding_request");
    assert!(is_tailscale(&refingerprinted(&golden, |m| m[3] = 0xff)));
    let five_byte_value = [0xc0, 0x01, 0, 5, 1, 2, 3, 4, 5, 0xaa, 0xbb, 0xcc];
    assert!(is_tailscale(&refingerprinted(&golden, |m| m.extend(five_byte_value))));
    // Upstream's server does not look whether it must be understood.
    assert!(is_tailscale(&refingerprinted(&golden, |m| m.extend([0x7f, 0x01, 0, 0]))));
    let unpadded = [0xc0, 0x01, 0, 5, 1, 2, 3, 4, 5];
    let refused = Err(NotStun::MalformedAttributes);
    assert_eq!(Request::parse(&refingerprinted(&golden, |m| m.extend(unpadded))), refused);
}

#[test]
fn the_longest_request_is_answered() {
    let golden = vector("binding_request");
    let fill = REQUEST_MAX_LEN - golden.len();
    let longest = refingerprinted(&golden, |m| {
        m.extend([0xc0, 0x01]);
        m.extend(((fill - 4) as u16).to_be_bytes());
        m.resize(m.len() + fill - 4, 0);
    });
    assert_eq!(longest.len(), REQUEST_MAX_LEN);
    assert!(is_tailscale(&longest));
}

#[test]
fn damaged_responses_do_not_panic_and_have_reasons() {
    for name in ["binding_response_ipv4", "binding_response_ipv4_mapped"] {
        let golden = vector(name);
        for len in 0..golden.len() {
            assert!(Response::parse(&golden[..len]).is_err(), "{name}: {len} bytes");
        }
        for at in 0..golden.len() {
            for value in 0..=u8::MAX {
                let mut changed = golden.clone();
                changed[at] = value;
                let _ = Response::parse(&changed);
            }
        }
    }
    let golden = vector("binding_response_ipv4");
    let changed = |at: usize, value: u8| {
        let mut changed = golden.clone();
        changed[at] = value;
        Response::parse(&changed)
    };
    assert_eq!(changed(4, 0), Err(ResponseError::NotStun));
    assert_eq!(changed(0, 0), Err(ResponseError::NotSuccess));
    assert_eq!(changed(3, 13), Err(ResponseError::MalformedAttributes));
    assert_eq!(changed(25, 3), Err(ResponseError::MalformedAddress));
    assert_eq!(changed(25, 2), Err(ResponseError::MalformedAddress));
    assert_eq!(changed(21, 0x21), Err(ResponseError::NoAddress));
}

#[test]
fn reasons_have_distinct_labels_and_indices() {
    for (index, reason) in NotStun::ALL.into_iter().enumerate() {
        assert_eq!(reason.index(), index);
        assert_eq!(NotStun::ALL.iter().filter(|other| other.label() == reason.label()).count(), 1);
    }
}
