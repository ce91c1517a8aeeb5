//! Datagrams that have come, with the memory for them.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use quinn_udp::RecvMeta;

use super::cut;

/// Trains that one call of the system receives.
const TRAINS: usize = 16;
/// The longest train that the kernel puts together (`UDP_GRO`).
const TRAIN_LEN: usize = 65_536;

/// Datagrams of one length that have come from one address one after the other.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedTrain<'a> {
    /// The address that they came from.
    pub remote: SocketAddr,
    /// The datagrams, one after the other.
    pub contents: &'a [u8],
    /// The bytes of each datagram but the last one, which may be shorter.
    pub segment: usize,
}

impl<'a> ReceivedTrain<'a> {
    /// The datagrams one by one.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        cut(self.contents, self.segment)
    }
}

/// Datagrams that have come. About 1 MiB, which is kept.
#[derive(Debug)]
pub struct ReceivedDatagrams {
    memory: Box<[u8]>,
    trains: [RecvMeta; TRAINS],
    len: usize,
}

impl Default for ReceivedDatagrams {
    fn default() -> Self {
        Self::new()
    }
}

impl ReceivedDatagrams {
    /// No datagrams.
    #[must_use]
    pub fn new() -> Self {
        let memory = vec![0; TRAINS * TRAIN_LEN].into_boxed_slice();
        Self { memory, trains: [RecvMeta::default(); TRAINS], len: 0 }
    }

    /// Adds a datagram from an address. Returns whether there was room; without any, it is lost, as on a network.
    pub fn push(&mut self, remote: SocketAddr, datagram: &[u8]) -> bool {
        let Some(train) = self.trains.get_mut(self.len) else { return false };
        let start = self.len * TRAIN_LEN;
        let Some(place) = self.memory[start..start + TRAIN_LEN].get_mut(..datagram.len()) else {
            return false;
        };
        place.copy_from_slice(datagram);
        (train.addr, train.len, train.stride) = (remote, datagram.len(), datagram.len());
        self.len += 1;
        true
    }

    /// Whether there is no datagram.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there is room for another datagram.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.len < TRAINS
    }

    /// Forgets the datagrams and keeps the memory.
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Lets the system fill the memory.
    pub(super) fn fill(
        &mut self,
        receive: impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut chunks = self.memory.chunks_exact_mut(TRAIN_LEN);
        let mut places: [IoSliceMut<'_>; TRAINS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("there is one for each train")));
        self.len = receive(&mut places, &mut self.trains)?.min(TRAINS);
        Ok(())
    }

    /// The datagrams with the addresses that they came from.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.trains().flat_map(|train| train.datagrams().map(move |one| (train.remote, one)))
    }

    /// The trains as the system has put them together.
    pub fn trains(&self) -> impl Iterator<Item = ReceivedTrain<'_>> {
        let trains = self.trains[..self.len].iter().zip(self.memory.chunks_exact(TRAIN_LEN));
        trains.map(|(meta, memory)| ReceivedTrain {
            remote: meta.addr,
            contents: &memory[..meta.len.min(TRAIN_LEN)],
            segment: meta.stride,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::count;
    use super::*;

    #[test]
    fn a_train_is_cut_into_its_datagrams_and_an_empty_datagram_is_one() {
        let cut = |train: &'static [u8], stride| {
            let lens: Vec<_> = cut(train, stride).map(<[u8]>::len).collect();
            assert_eq!(lens.len(), count(train, stride));
            lens
        };
        assert_eq!(cut(b"", 0), [0]);
        assert_eq!(cut(b"abcdefg", 3), [3, 3, 1]);
        assert_eq!(cut(b"abcdef", 3), [3, 3]);
        assert_eq!(cut(b"abc", 9), [3]);
        assert_eq!(cut(b"ab", 0), [1, 1], "the kernel never says this, and it must not panic");
    }

    #[test]
    fn what_has_no_room_is_refused() {
        let mut received = ReceivedDatagrams::new();
        let remote = SocketAddr::from(([192, 0, 2, 1], 7));
        assert!(!received.push(remote, &[0; TRAIN_LEN + 1]));
        for number in 0..TRAINS {
            assert!(received.has_room() && received.push(remote, &[number as u8; 3]));
        }
        assert!(!received.has_room() && !received.push(remote, b"one too many"));
        let firsts: Vec<_> = received.iter().map(|(_, datagram)| datagram[0]).collect();
        assert_eq!(firsts, (0..TRAINS as u8).collect::<Vec<_>>());
    }
}
