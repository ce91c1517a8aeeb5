//! The flows that the kernel tracks in a namespace, forgotten at once.
//!
//! `conntrack -F` does the same. It is in a package that few machines have, and the request is 20 bytes.

use std::io;

use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use crate::error::LabError;
use crate::namespace::Namespace;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`. Without a filter it is about all flows.
const DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST_WITH_ANSWER: u16 = 1 | 4;
/// `NLMSG_ERROR`, which also says that there was none.
const OUTCOME: u16 = 2;
/// Bytes of a netlink header, and of the `nfgenmsg` behind it.
const HEADER_LEN: usize = 16;
const REQUEST_LEN: u32 = 20;

/// Forgets every flow of the namespace, of every protocol: what a NAT has mapped, and what a firewall has let through.
pub(crate) fn flush(namespace: &Namespace) -> Result<(), LabError> {
    namespace.run(request).map_err(LabError::of("flush the flows of a namespace"))
}

fn request() -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))?;
    // The length, the type and the flags; the sequence number, the port and the `nfgenmsg` are zero.
    let mut message = [0; REQUEST_LEN as usize];
    message[..4].copy_from_slice(&REQUEST_LEN.to_ne_bytes());
    message[4..6].copy_from_slice(&DELETE.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_WITH_ANSWER.to_ne_bytes());
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 256];
    let (_, len) = recv(&socket, &mut answer, RecvFlags::empty())?;
    outcome(&answer[..len])
}

/// What an answer says: a number of the system's errors below zero, or zero.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(HEADER_LEN..HEADER_LEN + 4).and_then(|error| error.try_into().ok());
    match (kind, error.map(i32::from_ne_bytes)) {
        (Some(OUTCOME), Some(0)) => Ok(()),
        (Some(OUTCOME), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer = |kind: u16, error: i32| {
            let mut answer = [0; 36];
            answer[4..6].copy_from_slice(&kind.to_ne_bytes());
            answer[16..20].copy_from_slice(&error.to_ne_bytes());
            outcome(&answer)
        };
        assert!(answer(OUTCOME, 0).is_ok());
        assert_eq!(answer(OUTCOME, -1).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(answer(3, 0).is_err() && outcome(&[]).is_err());
    }
}
