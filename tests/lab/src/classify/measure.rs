//! The measurements of a NAT, one after the other.
//!
//! Datagrams on the wire keep their order, and without a delay one is through before the next. So whether one is filtered is
//! seen by the arrival of one behind it that is not, and nothing has to be waited for.

use std::collections::BTreeSet;
use std::io;
use std::iter::repeat_with;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use towpath_sim::{Dependence, Early};

use super::sockets::Socket;
use super::{Allocation, Behaviour};
use crate::error::LabError;
use crate::host::Host;
use crate::server::Server;

/// How long a datagram may take to get out, after a TCP connection did.
const OUT: Duration = Duration::from_millis(500);
/// How long a first TCP connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long each try of it may take. The kernel would try again after a second.
const TRY: Duration = Duration::from_millis(100);
/// Mappings are compared from so many sockets: a random port is the same twice in 512.
const MAPPED: usize = 3;
/// Fresh sockets whose external ports are compared.
const FRESH: usize = 8;

/// Two hosts behind a NAT, and three endpoints outside of it: two ports of one address, and one of another.
struct Bench<'a> {
    hosts: [&'a Host; 2],
    near: Socket,
    other_port: Socket,
    other_address: Socket,
    /// The number of the last datagram.
    number: u32,
}

/// Measures the NAT that two hosts are behind, by a server with two addresses.
///
/// # Errors
///
/// No TCP connection gets out, or a datagram is lost that must arrive.
pub(crate) fn measure(hosts: [&Host; 2], server: &Server) -> Result<Behaviour, LabError> {
    let outside = server.pair(hosts[0].address());
    let silent = || LabError::Silent { from: hosts[0].address().to_string(), to: outside[0].to_string() };
    let measured = || -> io::Result<Option<Behaviour>> {
        if !connects(hosts[0], server, outside[0])? {
            return Ok(None);
        }
        Bench::new(hosts, server, outside)?.behaviour()
    };
    measured().map_err(LabError::of("measure a NAT"))?.ok_or_else(silent)
}

/// Whether a TCP connection gets out, which every class lets through. Then all links are up.
fn connects(host: &Host, server: &Server, outside: IpAddr) -> io::Result<bool> {
    let listener = server.namespace().run(|| TcpListener::bind((outside, 0)))?;
    let address = listener.local_addr()?;
    let begun = Instant::now();
    Ok(host.namespace().run(|| {
        repeat_with(|| TcpStream::connect_timeout(&address, TRY))
            .take_while(|_| begun.elapsed() < CONNECT)
            .any(|connected| connected.is_ok())
    }))
}

impl<'a> Bench<'a> {
    fn new(hosts: [&'a Host; 2], server: &Server, outside: [IpAddr; 2]) -> io::Result<Self> {
        let open = |address| Socket::open(server.namespace(), address, 0);
        Ok(Self {
            hosts,
            near: open(outside[0])?,
            other_port: open(outside[0])?,
            other_address: open(outside[1])?,
            number: 0,
        })
    }

    fn behaviour(mut self) -> io::Result<Option<Behaviour>> {
        let first = self.open(0, 0)?;
        let Some(seen) = self.send_out(&first, &self.near)? else { return Ok(Some(Behaviour::Blocked)) };
        let translates = seen.ip() != first.address.ip();
        let Some(mapping) = self.mapping()? else { return Ok(None) };
        let Some(filtering) = self.filtering()? else { return Ok(None) };
        let Some(allocation) = self.allocation()? else { return Ok(None) };
        let Some(early) = self.early(&first, seen, allocation)? else { return Ok(None) };
        Ok(Some(Behaviour::Passing { translates, mapping, filtering, allocation, early }))
    }

    fn open(&self, host: usize, port: u16) -> io::Result<Socket> {
        Socket::open(self.hosts[host].namespace(), self.hosts[host].address(), port)
    }

    fn next(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    /// The source that a socket outside sees of a datagram from inside.
    fn send_out(&self, from: &Socket, to: &Socket) -> io::Result<Option<SocketAddr>> {
        // The number is of no test that waits for others.
        let number = u32::MAX - u32::from(from.address.port());
        from.send(number, to.address)?;
        to.sender_of(number, Instant::now() + OUT)
    }

    /// On what the external endpoint depends: the strictest that some socket shows.
    fn mapping(&self) -> io::Result<Option<Dependence>> {
        let mut strictest = Dependence::EndpointIndependent;
        for _ in 0..MAPPED {
            let socket = self.open(0, 0)?;
            let near = self.send_out(&socket, &self.near)?;
            let other_port = self.send_out(&socket, &self.other_port)?;
            let other_address = self.send_out(&socket, &self.other_address)?;
            if [near, other_port, other_address].contains(&None) {
                return Ok(None);
            }
            strictest = strictest.max(if near != other_port {
                Dependence::AddressAndPortDependent
            } else if near != other_address {
                Dependence::AddressDependent
            } else {
                Dependence::EndpointIndependent
            });
        }
        Ok(Some(strictest))
    }

    /// Which packets come in: to a socket that has sent to one endpoint, and with another host in the LAN that has sent to
    /// another address from the same port.
    fn filtering(&mut self) -> io::Result<Option<Option<Dependence>>> {
        let socket = self.open(0, 0)?;
        let other = self.open(1, socket.address.port())?;
        let Some(mapped) = self.send_out(&socket, &self.near)? else { return Ok(None) };
        let alone = self.that_reach(&socket, mapped)?;
        let Some(other_mapped) = self.send_out(&other, &self.other_address)? else { return Ok(None) };
        let number = self.next();
        self.other_address.send(number, other_mapped)?;
        let other_is_reached = other.receive_until(number)?.is_some();
        let beside = self.that_reach(&socket, mapped)?;
        let (Some(alone), Some(beside)) = (alone, beside) else { return Ok(None) };
        Ok(Some(if other_is_reached && alone == beside { alone } else { None }))
    }

    /// On what it depends which packets reach a socket that has sent to one endpoint. `Some(None)` if no filter is so, and
    /// `None` if that endpoint does not reach it either.
    fn that_reach(&mut self, socket: &Socket, mapped: SocketAddr) -> io::Result<Option<Option<Dependence>>> {
        let [other_port, other_address, near] = [(); 3].map(|()| self.next());
        self.other_port.send(other_port, mapped)?;
        self.other_address.send(other_address, mapped)?;
        self.near.send(near, mapped)?;
        let Some(arrived) = socket.receive_until(near)? else { return Ok(None) };
        let arrived: BTreeSet<u32> = arrived.into_iter().map(|(number, _)| number).collect();
        Ok(Some(match (arrived.contains(&other_port), arrived.contains(&other_address)) {
            (true, true) => Some(Dependence::EndpointIndependent),
            (true, false) => Some(Dependence::AddressDependent),
            (false, false) => Some(Dependence::AddressAndPortDependent),
            (false, true) => None,
        }))
    }

    fn allocation(&self) -> io::Result<Option<Allocation>> {
        let mut ports = Vec::new();
        let mut sockets = Vec::new();
        for _ in 0..FRESH {
            let socket = self.open(0, 0)?;
            let Some(seen) = self.send_out(&socket, &self.near)? else { return Ok(None) };
            ports.push((socket.address.port(), seen.port()));
            // A socket that is closed gives its port to the next.
            sockets.push(socket);
        }
        Ok(Some(Allocation::of(&ports)))
    }

    /// What becomes of a packet to the port that a socket will have outside. Where that cannot be foretold, nothing does.
    fn early(
        &mut self,
        known: &Socket,
        mapped: SocketAddr,
        allocation: Allocation,
    ) -> io::Result<Option<Early>> {
        if allocation != Allocation::Preserved {
            return Ok(Some(Early::Drop));
        }
        let socket = self.open(0, 0)?;
        let outside = SocketAddr::new(mapped.ip(), socket.address.port());
        let [early, behind] = [(); 2].map(|()| self.next());
        self.near.send(early, outside)?;
        self.near.send(behind, mapped)?;
        if known.receive_until(behind)?.is_none() {
            return Ok(None);
        }
        let seen = self.send_out(&socket, &self.near)?;
        Ok(seen.map(|seen| if seen == outside { Early::Drop } else { Early::Accept }))
    }
}
