//! STUN messages: a second reading of Tailscale's requests, the bound of every answer, and responses both ways.

use std::net::{IpAddr, SocketAddr};

use towpath_stun_proto::{
    ANSWER_MAX_LEN, AnswerKind, AskedOrigin, Dialect, Origins, REQUEST_LEN, RESPONSE_MAX_LEN, Request,
    Response, TransactionId, write_request, write_response,
};

/// Reads any bytes as a request and as a response.
pub(crate) fn messages(input: &[u8]) {
    request(input);
    // A sum that is right is nothing that comes about by chance.
    let mut summed = input.to_vec();
    summed.extend([0x80, 0x28, 0, 4]);
    summed.extend((crc32(input) ^ 0x5354_554e).to_be_bytes());
    request(&summed);
    response(input);
    written(input);
}

fn request(datagram: &[u8]) {
    let parsed = Request::parse(datagram);
    let tailscale = parsed.as_ref().is_ok_and(|request| request.dialect() == Dialect::Tailscale);
    assert_eq!(tailscale, is_tailscale_request(datagram), "{parsed:?}");
    let Ok(request) = parsed else { return };
    assert_eq!(datagram[8..20], request.transaction().0);
    assert_eq!(datagram[4..8] == COOKIE, request.dialect() != Dialect::Classic);
    answers(datagram, &request);
}

/// The magic cookie (RFC 8489 section 5).
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Checks that an answer to any client is hardly longer on the wire than its question.
fn answers(datagram: &[u8], request: &Request<'_>) {
    for (first, second, headers) in
        [("192.0.2.1:3478", "198.51.100.1:3479", 28), ("[2001:db8::1]:3478", "[2001:db8:1::1]:3479", 48)]
    {
        let [first, second]: [SocketAddr; 2] =
            [first, second].map(|address| address.parse().expect("an address"));
        let origins = Origins::spanned_by(first, second).expect("two addresses that differ in all");
        for origin in [None, Some(AskedOrigin { origins: &origins, number: 0 })] {
            let mut out = [0; ANSWER_MAX_LEN];
            let Ok(answer) = request.answer(&mut out, first, origin) else { continue };
            let tenths = if answer.kind == AnswerKind::Discovery { 21 } else { 15 };
            assert!(10 * (headers + answer.len) <= tenths * (headers + datagram.len()), "{answer:?}");
        }
    }
}

/// The rules of a request by Tailscale's clients, each on a line.
fn is_tailscale_request(datagram: &[u8]) -> bool {
    if !(20..=1280).contains(&datagram.len()) || datagram[..2] != [0, 1] || datagram[4..8] != COOKIE {
        return false;
    }
    let (mut at, mut last, mut tailnode) = (20, 0, false);
    while at < datagram.len() {
        let Some(&[a, b, c, d]) = datagram[at..].first_chunk() else { return false };
        let length = usize::from(u16::from_be_bytes([c, d]));
        let Some(value) = datagram.get(at + 4..at + 4 + length) else { return false };
        tailnode |= [a, b] == [0x80, 0x22] && value == b"tailnode";
        last = at;
        at += 4 + length.next_multiple_of(4);
    }
    let sum = (crc32(&datagram[..last]) ^ 0x5354_554e).to_be_bytes();
    at == datagram.len() && tailnode && datagram[last..] == [&[0x80, 0x28, 0, 4][..], &sum].concat()
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

fn response(datagram: &[u8]) {
    let Ok(response) = Response::parse(datagram) else { return };
    assert!(datagram[0] < 0x40 && datagram[4..8] == COOKIE);
    assert_eq!(response.mapped.ip(), response.mapped.ip().to_canonical());
    let mut out = [0; RESPONSE_MAX_LEN];
    let len = write_response(&mut out, response.transaction, response.mapped);
    assert_eq!(Response::parse(&out[..len]), Ok(response));
}

/// What we write is what we read, for any transaction and any address.
fn written(input: &[u8]) {
    let Some((transaction, rest)) = input.split_first_chunk::<12>() else { return };
    let transaction = TransactionId(*transaction);
    let mut datagram = [0; REQUEST_LEN];
    write_request(&mut datagram, transaction);
    assert_eq!(Request::parse(&datagram).map(|request| request.transaction()), Ok(transaction));

    let Some((address, rest)) = rest.split_first_chunk::<16>() else { return };
    let port = rest.first_chunk::<2>().copied().map_or(0, u16::from_be_bytes);
    let mut out = [0; RESPONSE_MAX_LEN];
    let len = write_response(&mut out, transaction, SocketAddr::new(IpAddr::from(*address), port));
    let mapped = SocketAddr::new(IpAddr::from(*address).to_canonical(), port);
    assert_eq!(Response::parse(&out[..len]), Ok(Response { transaction, mapped, other: None }));
}
