//! A tap on the socket of a peer: tells the timeline of the first probes, which nothing else shows.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, ready};

use towpath::datagrams::{Datagrams, ReceivedDatagrams, Train, Writable};
use towpath_live::SimDatagrams;
use towpath_wire::disco::datagram::DatagramKind;

use super::timeline::Timeline;

/// A socket, and what is told of it.
#[derive(Debug)]
pub(super) struct Tap {
    socket: SimDatagrams,
    name: &'static str,
    peer: &'static str,
    timeline: Timeline,
}

impl Tap {
    pub(super) const fn new(
        socket: SimDatagrams,
        name: &'static str,
        peer: &'static str,
        timeline: Timeline,
    ) -> Self {
        Self { socket, name, peer, timeline }
    }

    fn tell_of(&self, train: &Train<'_>, ttl: Option<u8>) {
        if DatagramKind::of(train.contents) != DatagramKind::Disco {
            return;
        }
        let Self { name, peer, timeline, .. } = self;
        let to = train.destination;
        match ttl {
            Some(ttl) => timeline.tell_once(&format!("{name} opens"), || {
                format!(
                    "{name} sends a probe to {to} that dies after {ttl} hops: it opens the NAT of {name} for {peer}, and does not \
                     reach the NAT of {peer}, which might be irritated by it"
                )
            }),
            None => timeline.tell_once(&format!("{name} probes"), || {
                format!("{name} probes the addresses of {peer}'s hello, {to} first")
            }),
        }
    }
}

impl Datagrams for Tap {
    fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    fn interfaces(&self) -> Option<Vec<IpAddr>> {
        self.socket.interfaces()
    }

    fn train_max(&self) -> usize {
        self.socket.train_max()
    }

    fn try_send(&self, train: &Train<'_>) -> io::Result<()> {
        self.tell_of(train, None);
        self.socket.try_send(train)
    }

    fn try_send_dying(&self, train: &Train<'_>, ttl: u8) -> io::Result<()> {
        self.tell_of(train, Some(ttl));
        self.socket.try_send_dying(train, ttl)
    }

    fn writable(&self) -> Writable<'_> {
        self.socket.writable()
    }

    fn poll_recv(&self, cx: &mut Context<'_>, received: &mut ReceivedDatagrams) -> Poll<io::Result<()>> {
        ready!(self.socket.poll_recv(cx, received))?;
        let Self { name, peer, timeline, .. } = self;
        for (remote, datagram) in received.iter() {
            if DatagramKind::of(datagram) == DatagramKind::Disco {
                timeline.tell_once(&format!("{name} is probed"), || {
                    format!("the first disco datagram of {peer} gets through to {name}, from {remote}")
                });
            }
        }
        Poll::Ready(Ok(()))
    }
}
