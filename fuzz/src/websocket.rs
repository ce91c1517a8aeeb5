//! A WebSocket stream of either side, byte by byte as RFC 6455 section 5 has it.

use towpath_websocket::{Client, Decoder, MAX_RECEIVED, Piece, Role, Server, Violation};

use crate::bytes::CutStream;

/// What a stream brings, and how it ends.
#[derive(Debug, Default, PartialEq)]
struct Brought {
    data: Vec<u8>,
    pings: Vec<Vec<u8>>,
    closed: bool,
    violation: Option<Violation>,
}

/// The stream of a client, which masks its frames.
pub(crate) fn from_client(input: &[u8]) {
    from_peer::<Server>(input, true);
}

/// The stream of a server, which does not.
pub(crate) fn from_server(input: &[u8]) {
    from_peer::<Client>(input, false);
}

/// A stream brings the same however it is cut, and what a plain reading of the whole says.
fn from_peer<R: Role>(input: &[u8], masked: bool) {
    let stream = CutStream::of(input);
    let mut expected = Brought::default();
    expected.violation = read(stream.whole, masked, &mut expected).err();
    assert_eq!(decode::<R>(&stream.pieces()), expected);
}

fn decode<R: Role>(pieces: &[&[u8]]) -> Brought {
    let (mut decoder, mut brought) = (Decoder::<R>::default(), Brought::default());
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = &mut bytes[..];
        loop {
            match decoder.next(&mut input) {
                Ok(Some(Piece::Data(data))) => brought.data.extend_from_slice(data),
                Ok(Some(Piece::Ping(payload))) => brought.pings.push(payload.as_slice().to_vec()),
                Ok(Some(Piece::Close)) => brought.closed = true,
                Ok(None) => break,
                Err(violation) => {
                    brought.violation = Some(violation);
                    return brought;
                }
            }
        }
        assert!(input.is_empty(), "a piece is used up");
    }
    brought
}

/// The plain reading. Whatever is cut off at the end is no violation.
fn read(mut stream: &[u8], masked: bool, brought: &mut Brought) -> Result<(), Violation> {
    let (mut fragmented, mut message) = (false, 0);
    while let Some((&[first, second], rest)) = stream.split_first_chunk() {
        check(first, second, masked, fragmented)?;
        let Some((length, rest)) = length(second & 0x7f, rest) else { return Ok(()) };
        let Some((mask, rest)) = mask(masked, rest) else { return Ok(()) };
        let length = length?;
        let here = rest.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let payload = rest[..here].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let whole = here as u64 == length;
        match first & 0x0f {
            0 | 2 => {
                message = if first & 0x0f == 0 { message + length } else { length };
                if message > MAX_RECEIVED {
                    return Err(Violation::TooBig);
                }
                fragmented = first & 0x80 == 0;
                brought.data.extend(payload);
            }
            8 if whole => {
                check_close(&payload.collect::<Vec<_>>())?;
                brought.closed = true;
                return Ok(());
            }
            9 if whole => brought.pings.push(payload.collect()),
            _ => {}
        }
        stream = &rest[here..];
        if !whole {
            return Ok(());
        }
    }
    Ok(())
}

/// The mask and what follows it, once it is here. No mask changes nothing.
fn mask(masked: bool, rest: &[u8]) -> Option<([u8; 4], &[u8])> {
    if !masked {
        return Some(([0; 4], rest));
    }
    rest.split_first_chunk().map(|(mask, rest)| (*mask, rest))
}

fn check(first: u8, second: u8, masked: bool, fragmented: bool) -> Result<(), Violation> {
    let opcode = first & 0x0f;
    match opcode {
        _ if first & 0x70 != 0 => Err(Violation::Reserved),
        1 => Err(Violation::Text),
        3..=7 | 11..=15 => Err(Violation::Opcode(opcode)),
        _ if masked && second & 0x80 == 0 => Err(Violation::Unmasked),
        _ if !masked && second & 0x80 != 0 => Err(Violation::Masked),
        0 if !fragmented => Err(Violation::Fragments),
        2 if fragmented => Err(Violation::Fragments),
        8..=10 if first & 0x80 == 0 || second & 0x7f > 125 => Err(Violation::Control),
        _ => Ok(()),
    }
}

/// The length and what follows it, once it is here.
fn length(short: u8, rest: &[u8]) -> Option<(Result<u64, Violation>, &[u8])> {
    Some(match short {
        126 => {
            let (bytes, rest) = rest.split_first_chunk()?;
            let length = u64::from(u16::from_be_bytes(*bytes));
            (if length >= 126 { Ok(length) } else { Err(Violation::Length) }, rest)
        }
        127 => {
            let (bytes, rest) = rest.split_first_chunk()?;
            let length = u64::from_be_bytes(*bytes);
            let shortest = length > u64::from(u16::MAX) && length >> 63 == 0;
            (if shortest { Ok(length) } else { Err(Violation::Length) }, rest)
        }
        short => (Ok(short.into()), rest),
    })
}

fn check_close(payload: &[u8]) -> Result<(), Violation> {
    match payload {
        [] => Ok(()),
        [high, low, reason @ ..] => {
            let allowed = [1000..=1003, 1007..=1014, 3000..=4999];
            let code = u16::from_be_bytes([*high, *low]);
            if !allowed.iter().any(|codes| codes.contains(&code)) {
                Err(Violation::CloseCode)
            } else if String::from_utf8(reason.to_vec()).is_err() {
                Err(Violation::CloseReason)
            } else {
                Ok(())
            }
        }
        [_] => Err(Violation::CloseCode),
    }
}
