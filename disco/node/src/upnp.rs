//! UPnP-IGD: how the gateway is asked for a port where it speaks neither PCP nor NAT-PMP.
//!
//! The state machine says when; the crate igd-next speaks SSDP, HTTP and SOAP. One task does one request after the other. The gateway is
//! searched for by SSDP from the address by which this host reaches it, so that the kernel sends on that interface, with the hop limit of
//! multicast, 1: at the gateway itself, because a firewall of this host lets its answer in, and at the group of SSDP, because not every
//! gateway answers the former. Only a device with the IP address of the default route's gateway is believed, and its description and its
//! service must have that address, too. An answer of HTTP has 1 MiB at most.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{
    AddAnyPortError, AddPortError, GetExternalIpError, PortMappingProtocol, RemovePortError, RequestError,
    SearchOptions,
};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use towpath_disco::{GatewayConfig, UpnpAnswer, UpnpRequest};
use tracing::debug;

use crate::shared::Shared;

/// The group and the port of SSDP.
const SSDP: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 255, 255, 250), 1900);
/// How long a search may take, with the description of what is found.
const SEARCH: Duration = Duration::from_secs(3);
/// How often it is searched again because another device has answered.
const SEARCHES: usize = 3;
/// How long an action of the gateway may take.
const ACTION: Duration = Duration::from_secs(2);
/// How long all of a request may take, which is less than the state machine waits.
const REQUEST: Duration = Duration::from_secs(7);
/// How long the last requests may take at the end.
const LAST: Duration = Duration::from_secs(2);
/// Requests that wait.
const ORDERS: usize = 16;
/// By which the gateway lists the port to people.
const DESCRIPTION: &str = "towpath";

/// Error codes of WANIPConnection.
mod code {
    pub(super) const INVALID_ACTION: u16 = 401;
    pub(super) const INVALID_ARGUMENTS: u16 = 402;
    pub(super) const TOO_LONG: u16 = 605;
    pub(super) const NOT_AUTHORIZED: u16 = 606;
    pub(super) const NO_SUCH_ENTRY: u16 = 714;
    pub(super) const CONFLICT: u16 = 718;
    pub(super) const SAME_PORT: u16 = 724;
    pub(super) const ONLY_PERMANENT: u16 = 725;
    pub(super) const NO_PORTS: u16 = 728;
}

/// A request of the state machine.
type Order = (GatewayConfig, UpnpRequest);

/// The requests that wait for [`serve`].
pub(crate) type Orders = mpsc::Receiver<Order>;

/// The way to the task that asks the gateway.
#[derive(Debug)]
pub(crate) struct Upnp {
    orders: mpsc::Sender<Order>,
    /// Whether the endpoint ends.
    ending: watch::Sender<bool>,
}

impl Upnp {
    pub(crate) fn new() -> (Self, Orders) {
        let (orders, waiting) = mpsc::channel(ORDERS);
        (Self { orders, ending: watch::Sender::new(false) }, waiting)
    }

    pub(crate) fn order(&self, gateway: GatewayConfig, request: UpnpRequest) {
        // One that finds no room is, to the state machine, one that the gateway does not answer.
        if self.orders.try_send((gateway, request)).is_err() {
            debug!(gateway = %gateway.address, "UPnP: a request is dropped, because too many wait for the gateway");
        }
    }

    /// Gives up a search, and waits until the other requests are done, as far as that does not take long.
    pub(crate) async fn finish(&self) {
        self.ending.send_replace(true);
        if timeout(LAST, self.orders.closed()).await.is_err() {
            debug!(
                "UPnP: the gateway has not answered at the end: a port is forwarded until its lease is over"
            );
        }
    }
}

/// Does the requests of an endpoint.
pub(crate) async fn serve(shared: Arc<Shared>, mut orders: Orders) {
    let mut ending = shared.upnp.ending.subscribe();
    let mut gateways = Gateways { known: None, ending: ending.clone() };
    loop {
        let order = tokio::select! {
            biased;
            order = orders.recv() => order,
            _ = ending.wait_for(|ending| *ending) => None,
        };
        match order {
            Some((gateway, UpnpRequest::Map { external, lifetime })) => {
                let asked = gateways.map(&gateway, external, lifetime);
                let answer = timeout(REQUEST, asked).await.unwrap_or_else(|_| {
                    debug!(gateway = %gateway.address, "UPnP: the gateway takes longer than {REQUEST:?}");
                    UpnpAnswer::Silent
                });
                shared.call(|node, now| node.handle_upnp(now, gateway, answer));
            }
            Some((gateway, UpnpRequest::Unmap { external })) => gateways.unmap(&gateway, external).await,
            None => return,
        }
    }
}

/// The gateway that was found last.
struct Gateways {
    known: Option<(GatewayConfig, Gateway<Tokio>)>,
    ending: watch::Receiver<bool>,
}

/// Why a gateway has not done what it was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// It has said so, by this error code.
    Refused(u16),
    /// It does not answer, or not as it should.
    Broken(String),
}

impl Gateways {
    async fn map(&mut self, gateway: &GatewayConfig, external: Option<u16>, lifetime: u32) -> UpnpAnswer {
        let address = gateway.address;
        loop {
            let is_known = self.knows(gateway);
            let Some(device) = self.find(gateway).await else { return UpnpAnswer::Silent };
            match forward(&device, gateway.local, external, lifetime).await {
                Ok(external) => {
                    debug!(gateway = %address, %external, "UPnP: the gateway forwards a port");
                    return UpnpAnswer::Granted(external);
                }
                Err(Failure::Refused(code)) => {
                    debug!(gateway = %address, code, "UPnP: the gateway refuses to forward a port");
                    return UpnpAnswer::Refused(code);
                }
                Err(Failure::Broken(error)) => {
                    debug!(gateway = %address, error, "UPnP: the gateway answers as no gateway does, or not at all");
                    self.known = None;
                    // One that has started anew has its service elsewhere.
                    if !is_known {
                        return UpnpAnswer::Silent;
                    }
                }
            }
        }
    }

    async fn unmap(&mut self, gateway: &GatewayConfig, external: u16) {
        let address = gateway.address;
        let Some(device) = self.find(gateway).await else { return };
        match within(device.remove_port(PortMappingProtocol::UDP, external)).await {
            // What is not forwarded any more need not be given back.
            Ok(()) | Err(Failure::Refused(code::NO_SUCH_ENTRY)) => {
                debug!(gateway = %address, external, "UPnP: the port is given back");
            }
            Err(error) => {
                debug!(gateway = %address, external, ?error, "UPnP: the gateway does not take the port back: it is forwarded until its lease is over");
            }
        }
    }

    fn knows(&self, gateway: &GatewayConfig) -> bool {
        self.known.as_ref().is_some_and(|(known, _)| known == gateway)
    }

    /// The device of the gateway: the one that was found last, or else one that is searched for, unless the endpoint ends.
    async fn find(&mut self, gateway: &GatewayConfig) -> Option<Gateway<Tokio>> {
        if !self.knows(gateway) {
            let found = tokio::select! {
                found = search(gateway) => found,
                _ = self.ending.wait_for(|ending| *ending) => None,
            };
            self.known = found.map(|device| (*gateway, device));
        }
        self.known.as_ref().map(|(_, device)| device.clone())
    }
}

async fn search(gateway: &GatewayConfig) -> Option<Gateway<Tokio>> {
    let both = async {
        tokio::select! {
            Some(device) = search_at(gateway, (gateway.address, SSDP.1).into()) => Some(device),
            Some(device) = search_at(gateway, SSDP.into()) => Some(device),
            else => None,
        }
    };
    let found = timeout(SEARCH, both).await.ok().flatten();
    if found.is_none() {
        debug!(gateway = %gateway.address, "UPnP: no gateway is found");
    }
    found
}

/// Searches with a request to an address. Another device than the gateway may answer first.
async fn search_at(gateway: &GatewayConfig, asked: SocketAddr) -> Option<Gateway<Tokio>> {
    for _ in 0..SEARCHES {
        let mut options = SearchOptions::default();
        options.bind_addr = (*gateway.local.ip(), 0).into();
        options.broadcast_address = asked;
        (options.timeout, options.single_search_timeout) = (Some(SEARCH), Some(SEARCH));
        match search_gateway(options).await {
            Ok(device) if device.addr.ip() == IpAddr::V4(gateway.address) => return Some(device),
            Ok(device) => {
                debug!(device = %device.addr, gateway = %gateway.address, "UPnP: a device that is not the gateway answers, and is not asked");
            }
            Err(error) => {
                debug!(%error, %asked, "UPnP: nothing is found");
                return None;
            }
        }
    }
    None
}

/// Asks a gateway to forward a port: the wanted one if there is one and it is free. Returns the external address with it.
async fn forward(
    device: &Gateway<Tokio>,
    local: SocketAddrV4,
    wanted: Option<u16>,
    lifetime: u32,
) -> Result<SocketAddrV4, Failure> {
    let IpAddr::V4(ip) = within(device.get_external_ip()).await? else {
        return Err(Failure::Broken("its external address is not of IPv4".to_owned()));
    };
    let port = match forward_for(device, local, wanted, lifetime).await {
        // Some gateways have leases that do not end alone, and some of those find a lease to be an error of the arguments.
        Err(Failure::Refused(code::ONLY_PERMANENT | code::INVALID_ARGUMENTS)) => {
            forward_for(device, local, wanted, 0).await?
        }
        forwarded => forwarded?,
    };
    Ok(SocketAddrV4::new(ip, port))
}

async fn forward_for(
    device: &Gateway<Tokio>,
    local: SocketAddrV4,
    wanted: Option<u16>,
    lifetime: u32,
) -> Result<u16, Failure> {
    let (protocol, local) = (PortMappingProtocol::UDP, SocketAddr::V4(local));
    if let Some(port) = wanted {
        match within(device.add_port(protocol, port, local, lifetime, DESCRIPTION)).await {
            Ok(()) => return Ok(port),
            Err(Failure::Refused(code::CONFLICT | code::SAME_PORT)) => {}
            Err(failure) => return Err(failure),
        }
    }
    within(device.add_any_port(protocol, local, lifetime, DESCRIPTION)).await
}

async fn within<T, E>(action: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
where
    Failure: From<E>,
{
    match timeout(ACTION, action).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failure::Broken(format!("no answer in {ACTION:?}"))),
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::ErrorCode(code, _) => Self::Refused(code),
            RequestError::UnsupportedAction(_) => Self::Refused(code::INVALID_ACTION),
            // It has the answer in it, whose length the gateway chooses.
            RequestError::InvalidResponse(_) => Self::Broken("its answer cannot be read".to_owned()),
            other => Self::Broken(other.to_string()),
        }
    }
}

impl From<GetExternalIpError> for Failure {
    fn from(error: GetExternalIpError) -> Self {
        match error {
            GetExternalIpError::ActionNotAuthorized => Self::Refused(code::NOT_AUTHORIZED),
            GetExternalIpError::RequestError(error) => error.into(),
        }
    }
}

impl From<RemovePortError> for Failure {
    fn from(error: RemovePortError) -> Self {
        match error {
            RemovePortError::ActionNotAuthorized => Self::Refused(code::NOT_AUTHORIZED),
            RemovePortError::NoSuchPortMapping => Self::Refused(code::NO_SUCH_ENTRY),
            RemovePortError::RequestError(error) => error.into(),
        }
    }
}

impl From<AddPortError> for Failure {
    fn from(error: AddPortError) -> Self {
        match error {
            AddPortError::ActionNotAuthorized => Self::Refused(code::NOT_AUTHORIZED),
            AddPortError::PortInUse => Self::Refused(code::CONFLICT),
            AddPortError::SamePortValuesRequired => Self::Refused(code::SAME_PORT),
            AddPortError::OnlyPermanentLeasesSupported => Self::Refused(code::ONLY_PERMANENT),
            AddPortError::DescriptionTooLong => Self::Refused(code::TOO_LONG),
            AddPortError::InternalPortZeroInvalid | AddPortError::ExternalPortZeroInvalid => {
                Self::Refused(code::INVALID_ARGUMENTS)
            }
            AddPortError::RequestError(error) => error.into(),
        }
    }
}

impl From<AddAnyPortError> for Failure {
    fn from(error: AddAnyPortError) -> Self {
        match error {
            AddAnyPortError::ActionNotAuthorized => Self::Refused(code::NOT_AUTHORIZED),
            AddAnyPortError::ExternalPortInUse => Self::Refused(code::CONFLICT),
            AddAnyPortError::NoPortsAvailable => Self::Refused(code::NO_PORTS),
            AddAnyPortError::OnlyPermanentLeasesSupported => Self::Refused(code::ONLY_PERMANENT),
            AddAnyPortError::DescriptionTooLong => Self::Refused(code::TOO_LONG),
            AddAnyPortError::InternalPortZeroInvalid => Self::Refused(code::INVALID_ARGUMENTS),
            AddAnyPortError::RequestError(error) => error.into(),
        }
    }
}
