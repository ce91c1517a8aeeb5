//! The stage attach: hands a client to the data plane, with the ServerInfo in its outbox and the bytes already read.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use towpath_relay_forward::{ClientArrival, DataPlane, Transport};
use towpath_relay_proto::account::connections::Seat;
use towpath_relay_proto::admission::Grant;
use towpath_tls::RecordLayer;
use towpath_wire::derp::frame::ServerFrame;
use towpath_wire::derp::info::{Introduction, ServerInfo};
use towpath_wire::derp::mesh::PresentFlags;

use super::login::Introduced;
use super::refusal::Refusal;
use super::stream::StreamParts;

/// The spread of the keep-alives of connections that came together, as in derper.
const KEEPALIVE_SPREAD: Duration = Duration::from_secs(5);

/// Facts about a client besides its login.
#[derive(Debug)]
pub(super) struct Attachment {
    /// The number of the connection.
    pub(super) id: u64,
    /// The address of the client.
    pub(super) client: SocketAddr,
    /// The client said that another relay would be nearer.
    pub(super) not_ideal: bool,
    /// The interval of keep-alives.
    pub(super) keepalive: Duration,
    /// What opens and seals TLS 1.3 records from now on.
    pub(super) records: RecordLayer,
    /// What the connection is charged to.
    pub(super) seat: Seat,
}

/// Hands a client to the data plane.
pub(super) fn attach(
    plane: &DataPlane,
    introduced: Introduced,
    grant: Grant,
    attachment: Attachment,
) -> Result<(), Refusal> {
    let Introduced { stream, unwrapper, introduction, mut frames } = introduced;
    let Attachment { id, client: address, not_ideal, keepalive, records, seat } = attachment;
    let StreamParts { socket, halves, incoming, mut plaintext } =
        stream.into_parts(records).map_err(Refusal::Broken)?;
    let transport = match (unwrapper, halves) {
        (None, Some(halves)) => Transport::tls(socket, halves, incoming),
        (None, None) => Transport::plain(socket),
        (Some(mut unwrapper), halves) => {
            plaintext = unwrapper.unwrap_all(&mut plaintext).map_err(Refusal::WebSocket)?;
            Transport::websocket(socket, halves, unwrapper, incoming)
        }
    };
    frames.extend_from_slice(&plaintext);

    let Introduction { client, info, shared } = introduction;
    let (mut nonce, mut jitter) = ([0; 24], [0]);
    getrandom::fill(&mut nonce)
        .and_then(|()| getrandom::fill(&mut jitter))
        .map_err(|error| Refusal::Broken(io::Error::other(error)))?;
    let (rate, burst) = grant.rate.map_or((0, 0), |rate| (rate.bytes_per_second, rate.burst));
    let sealed = ServerInfo { rate, burst }.seal(&shared, &nonce);
    plane.attach(ClientArrival {
        id,
        key: client.into(),
        address,
        flags: PresentFlags::of(grant.rights.is_mesh(), info.is_prober, not_ideal),
        app_name: info.app_name,
        version: info.version,
        policy: grant.policy,
        transport,
        frames,
        server_info: ServerFrame::ServerInfo { nonce: &nonce, sealed: &sealed },
        rights: grant.rights,
        limits: grant.limits,
        not_ideal,
        first_keepalive: first_keepalive(keepalive, jitter[0]),
        seat,
    });
    Ok(())
}

/// Returns how long after its login a client is sent its first keep-alive. A random byte spreads it.
fn first_keepalive(interval: Duration, random: u8) -> Duration {
    interval + KEEPALIVE_SPREAD * u32::from(random) / u32::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_keepalives_are_spread_over_five_seconds() {
        let minute = Duration::from_secs(60);
        let due: Vec<_> = (0..=u8::MAX).map(|random| first_keepalive(minute, random) - minute).collect();
        assert_eq!((due[0], due[255]), (Duration::ZERO, Duration::from_secs(5)));
        let gap = due.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(gap <= Some(Duration::from_millis(20)), "{gap:?}");
    }
}
