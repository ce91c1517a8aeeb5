//! The packets of the load: their layout and their lengths.
//!
//! | bytes | |
//! |---|---|
//! | 0..4 | `TPLT`, which looks like neither disco nor WireGuard |
//! | 4..8 | CRC-32 of the bytes that follow |
//! | 8..12 | flow |
//! | 12..20 | number in the flow, from 0 |
//! | 20..28 | when the packet was due, in nanoseconds of `CLOCK_MONOTONIC` |
//! | 28.. | filler, which differs from packet to packet |
//!
//! Integers are big endian.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use towpath_wire::derp::MAX_PACKET;

const MAGIC: [u8; 4] = *b"TPLT";
/// The length of the shortest packet: a header without filler.
pub(crate) const MIN_LEN: usize = 28;

/// The header of a packet, without magic and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PacketHeader {
    pub(crate) flow: u32,
    pub(crate) number: u64,
    /// When the packet was due, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) due: u64,
}

/// Builds packets, in a buffer that it reuses.
#[derive(Debug)]
pub(crate) struct PacketBuilder {
    filler: Vec<u8>,
    packet: Vec<u8>,
}

impl PacketBuilder {
    pub(crate) fn new() -> Self {
        // Xorshift (Marsaglia 2003). Its period is none that a relay could have.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let filler = (0..2 * MAX_PACKET / 8).flat_map(|_| next().to_be_bytes()).collect();
        Self { filler, packet: Vec::with_capacity(MAX_PACKET) }
    }

    /// Builds a packet of `len` bytes, [`MIN_LEN`] to 65,536, with this header.
    pub(crate) fn build(&mut self, header: &PacketHeader, len: usize) -> &[u8] {
        let start = (header.number as usize).wrapping_mul(61) % MAX_PACKET;
        let packet = &mut self.packet;
        packet.clear();
        packet.extend_from_slice(&MAGIC);
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(&header.flow.to_be_bytes());
        packet.extend_from_slice(&header.number.to_be_bytes());
        packet.extend_from_slice(&header.due.to_be_bytes());
        packet.extend_from_slice(&self.filler[start..start + (len - MIN_LEN)]);
        let checksum = crc32fast::hash(&packet[8..]);
        packet[4..8].copy_from_slice(&checksum.to_be_bytes());
        packet
    }
}

/// Reads the header of a packet; `None` if the packet is not as it was sent.
pub(crate) fn read(packet: &[u8]) -> Option<PacketHeader> {
    let rest = packet.strip_prefix(&MAGIC)?;
    let (checksum, rest) = rest.split_first_chunk()?;
    if crc32fast::hash(rest) != u32::from_be_bytes(*checksum) {
        return None;
    }
    let (flow, rest) = rest.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (due, _filler) = rest.split_first_chunk()?;
    Some(PacketHeader {
        flow: u32::from_be_bytes(*flow),
        number: u64::from_be_bytes(*number),
        due: u64::from_be_bytes(*due),
    })
}

/// The lengths of packets: one length, or a mix with weights in a fixed order that repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PacketSizes {
    cycle: Vec<usize>,
}

impl PacketSizes {
    /// The most packets after which a mix may repeat.
    const MAX_CYCLE: u32 = 10_000;

    /// Makes a mix of lengths in bytes, each with its weight.
    ///
    /// # Errors
    ///
    /// If a packet cannot have one of the lengths, or the sum of the weights is zero or too large.
    pub(crate) fn new(mix: &[(usize, u32)]) -> Result<Self> {
        if let Some((len, _)) = mix.iter().find(|(len, _)| !(MIN_LEN..=MAX_PACKET).contains(len)) {
            bail!("a packet cannot have {len} bytes: use {MIN_LEN} to {MAX_PACKET}");
        }
        let total = mix.iter().fold(0u32, |sum, (_, weight)| sum.saturating_add(*weight));
        if !(1..=Self::MAX_CYCLE).contains(&total) {
            bail!("the sum of the weights is {total}: it must be 1 to {}", Self::MAX_CYCLE);
        }
        // Lengths alternate as evenly as possible: the next one is the one furthest behind its share.
        let mut sent = vec![0u64; mix.len()];
        let cycle = (1..=u64::from(total))
            .map(|turn| {
                let behind = |index: &usize| {
                    (turn * u64::from(mix[*index].1)).cast_signed()
                        - (sent[*index] * u64::from(total)).cast_signed()
                };
                let next = (0..mix.len()).rev().max_by_key(behind).expect("a sum above zero has a weight");
                sent[next] += 1;
                mix[next].0
            })
            .collect();
        Ok(Self { cycle })
    }

    /// The length of the packet `number` of a flow.
    pub(crate) fn of(&self, number: u64) -> usize {
        self.cycle[(number % self.cycle.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: PacketHeader = PacketHeader { flow: 7, number: 1_000_003, due: u64::MAX - 1 };

    #[test]
    fn a_packet_reads_as_it_was_built() {
        let mut builder = PacketBuilder::new();
        for len in [MIN_LEN, MIN_LEN + 1, 1400, MAX_PACKET] {
            for number in [0, 1, HEADER.number, u64::MAX] {
                let header = PacketHeader { number, ..HEADER };
                let packet = builder.build(&header, len);
                assert_eq!((packet.len(), read(packet)), (len, Some(header)));
            }
        }
    }

    #[test]
    fn a_changed_or_truncated_packet_is_detected() {
        let packet = PacketBuilder::new().build(&HEADER, 200).to_vec();
        for len in 0..packet.len() {
            assert_eq!(read(&packet[..len]), None);
        }
        for bit in 0..packet.len() * 8 {
            let mut changed = packet.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&changed), None, "bit {bit}");
        }
    }

    #[test]
    fn consecutive_packets_differ() {
        let mut builder = PacketBuilder::new();
        let first = builder.build(&HEADER, 1400).to_vec();
        let second = builder.build(&PacketHeader { number: HEADER.number + 1, ..HEADER }, 1400);
        let same = first[MIN_LEN..].iter().zip(&second[MIN_LEN..]).filter(|(a, b)| a == b).count();
        assert!(same < 50, "{same} bytes are equal");
    }

    #[test]
    fn a_mix_follows_its_weights() {
        let sizes = PacketSizes::new(&[(64, 7), (576, 4), (1400, 1)]).unwrap();
        let of = |len| (0..1200).filter(|number| sizes.of(*number) == len).count();
        assert_eq!((of(64), of(576), of(1400)), (700, 400, 100));
        assert_eq!((sizes.of(0), sizes.of(1)), (64, 576));
        for mix in [&[(27, 1)][..], &[(65_537, 1)], &[(64, 0)], &[(64, u32::MAX), (64, u32::MAX)], &[]] {
            assert!(PacketSizes::new(mix).is_err(), "{mix:?}");
        }
    }
}
