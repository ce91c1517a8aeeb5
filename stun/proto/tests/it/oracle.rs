//! Properties of parsing and of messages of the fixed shape, against stun-rs, a complete STUN codec written by others.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use stun_rs::attributes::stun::{Fingerprint, MappedAddress, Software, XorMappedAddress};
use stun_rs::methods::BINDING;
use stun_rs::{
    DecoderContextBuilder, MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, StunAttribute,
    StunMessage, StunMessageBuilder,
};
use towpath_stun_proto::{
    Dialect, REQUEST_LEN, RESPONSE_MAX_LEN, Request, Response, TransactionId, write_request, write_response,
};

fn encode(message: &StunMessage) -> Vec<u8> {
    let mut out = vec![0; 2048];
    let len = MessageEncoderBuilder::default().build().encode(&mut out, message).unwrap();
    out.truncate(len);
    out
}

/// Decodes without skipping what follows FINGERPRINT, since the rule under test is that nothing may.
fn decode(bytes: &[u8]) -> Option<StunMessage> {
    let context = DecoderContextBuilder::default().with_validation().not_ignore().build();
    let decoder = MessageDecoderBuilder::default().with_context(context).build();
    decoder.decode(bytes).ok().map(|(message, _)| message)
}

/// What the oracle says of a datagram: whether it is a Binding request, and in which dialect.
fn oracle_dialect(bytes: &[u8]) -> Option<Dialect> {
    let message = decode(bytes)?;
    let attributes = message.attributes();
    let tailnode = attributes.iter().any(|a| a.as_software().is_ok_and(|s| s == "tailnode"));
    let binding = message.method() == BINDING && message.class() == MessageClass::Request;
    let fingerprint = attributes.iter().position(StunAttribute::is_fingerprint);
    match fingerprint {
        _ if !binding => None,
        Some(at) if at + 1 < attributes.len() => None,
        Some(_) if tailnode => Some(Dialect::Tailscale),
        _ => Some(Dialect::Standard),
    }
}

/// What a generated request is made of.
#[derive(Clone, Debug)]
enum Part {
    Software(&'static str),
    /// An attribute that no standard defines, and that may be ignored.
    Unknown(Vec<u8>),
    Fingerprint {
        correct: bool,
    },
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        3 => Just(Part::Software("tailnode")),
        1 => prop::sample::select(vec!["tailnod", "tailnode2", "x"]).prop_map(Part::Software),
        2 => vec(any::<u8>(), 0..9).prop_map(Part::Unknown),
        1 => Just(Part::Unknown(b"tailnode".to_vec())),
    ]
}

/// Parts with one FINGERPRINT or none; most of the time it is the last, as in a good request.
///
/// Never two: the oracle would compute both as if the first were the last.
fn parts() -> impl Strategy<Value = Vec<Part>> {
    let place = prop_oneof![3 => Just(usize::MAX), 1 => 0..5_usize];
    let fingerprint = prop::option::weighted(0.8, (place, prop::bool::weighted(0.8)));
    (vec(part(), 0..5), fingerprint).prop_map(|(mut parts, fingerprint)| {
        if let Some((place, correct)) = fingerprint {
            parts.insert(place.min(parts.len()), Part::Fingerprint { correct });
        }
        parts
    })
}

/// Writes header and parts. The length field counts all of them, which is what FINGERPRINT must be computed
/// with if it is the last.
fn assemble(kind: u16, transaction: [u8; 12], parts: &[Part]) -> Vec<u8> {
    let value_len = |part: &Part| match part {
        Part::Software(name) => name.len(),
        Part::Unknown(value) => value.len(),
        Part::Fingerprint { .. } => 4,
    };
    let length: usize = parts.iter().map(|part| 4 + value_len(part).next_multiple_of(4)).sum();
    let mut out = kind.to_be_bytes().to_vec();
    out.extend((length as u16).to_be_bytes());
    out.extend([0x21, 0x12, 0xa4, 0x42]);
    out.extend(transaction);
    for part in parts {
        let (kind, value) = match part {
            Part::Software(name) => (0x8022_u16, name.as_bytes().to_vec()),
            Part::Unknown(value) => (0xc123, value.clone()),
            Part::Fingerprint { correct } => {
                let value = crc32fast::hash(&out) ^ 0x5354_554e ^ u32::from(!correct);
                (0x8028, value.to_be_bytes().to_vec())
            }
        };
        out.extend(kind.to_be_bytes());
        out.extend((value.len() as u16).to_be_bytes());
        out.extend(&value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

fn socket_addr() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(std::net::IpAddr::from),
        any::<[u8; 16]>().prop_map(std::net::IpAddr::from)
    ];
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
}

proptest! {
    #[test]
    fn our_request_is_theirs(transaction: [u8; 12]) {
        let mut ours = [0; REQUEST_LEN];
        write_request(&mut ours, TransactionId(transaction));
        let theirs = StunMessageBuilder::new(BINDING, MessageClass::Request)
            .with_transaction_id(transaction.into())
            .with_attribute(Software::new("tailnode").unwrap())
            .with_attribute(Fingerprint::default())
            .build();
        prop_assert_eq!(ours.as_slice(), encode(&theirs));
        let parsed = Request::parse(&ours).unwrap();
        prop_assert_eq!((parsed.dialect(), parsed.transaction()), (Dialect::Tailscale, TransactionId(transaction)));
    }

    #[test]
    fn our_response_is_theirs(transaction: [u8; 12], client in socket_addr()) {
        let mut ours = [0; RESPONSE_MAX_LEN];
        let len = write_response(&mut ours, TransactionId(transaction), client);
        let theirs = StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
            .with_transaction_id(transaction.into())
            .with_attribute(XorMappedAddress::from(client))
            .build();
        prop_assert_eq!(&ours[..len], encode(&theirs));
    }

    #[test]
    fn our_verdict_on_requests_is_theirs(
        kind in prop_oneof![8 => Just(0x0001_u16), 1 => Just(0x0101), 1 => Just(0x0003)],
        transaction: [u8; 12],
        parts in parts(),
    ) {
        let bytes = assemble(kind, transaction, &parts);
        let ours = Request::parse(&bytes).map(|request| request.dialect());
        prop_assert_eq!(ours.ok(), oracle_dialect(&bytes), "{:?}", ours);
    }

    #[test]
    fn our_reading_of_responses_is_theirs(
        transaction: [u8; 12],
        xor_mapped in prop::option::of(socket_addr()),
        mapped in prop::option::of(socket_addr()),
        software: bool,
    ) {
        let mut theirs = StunMessageBuilder::new(BINDING, MessageClass::SuccessResponse)
            .with_transaction_id(transaction.into());
        if software {
            theirs = theirs.with_attribute(Software::new("a server").unwrap());
        }
        if let Some(mapped) = mapped {
            theirs = theirs.with_attribute(MappedAddress::from(mapped));
        }
        if let Some(xor_mapped) = xor_mapped {
            theirs = theirs.with_attribute(XorMappedAddress::from(xor_mapped));
        }
        let ours = Response::parse(&encode(&theirs.with_attribute(Fingerprint::default()).build()));
        prop_assert_eq!(ours.map(|response| response.mapped).ok(), xor_mapped.or(mapped));
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&noise);
        let _ = Response::parse(&noise);
        let headed = assemble(0x0101, [7; 12], &[Part::Unknown(noise)]);
        let _ = Request::parse(&headed);
        let _ = Response::parse(&headed[..headed.len() - 1]);
    }
}
