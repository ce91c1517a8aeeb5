//! A proxy: the packets of a WireGuard interface, carried by an endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use towpath::{Endpoint, NetworkChanges, NodePrivate, NodePublic};
use tracing::{info, warn};

use crate::carrier::{Carrier, CarrierStats, LocalSide};
use crate::hosts::HostsFile;
use crate::quick::{QuickFile, QuickPeer, to_text};
use crate::state::{Changed, Found, StateFile};
use crate::wg::{self, Interface, OVERHEAD, Uplink, WgError};

/// How often the interface is looked at, for what others have done to it. Of its coming and going the kernel tells at once.
const LOOK: Duration = Duration::from_secs(2);
/// The longest MTU of a path that is expected without a look at it: Ethernet's.
const ETHERNET_MTU: u32 = 1500;

/// What a proxy is for.
#[derive(Debug)]
pub struct ProxyConfig {
    /// The interface and its peers.
    pub file: QuickFile,
    /// Names of peers besides those in the file, whose place they take.
    pub names: Vec<(String, NodePublic)>,
    /// Where it is written down what was found before it is changed.
    pub state_directory: PathBuf,
    /// Where names are written to; `None` for nowhere.
    pub hosts: Option<PathBuf>,
}

/// Why a proxy cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The interface cannot be asked or changed.
    #[error(transparent)]
    Wg(#[from] WgError),
    /// What was found cannot be written down.
    #[error("cannot {action} {}, without which nothing could be put back later: nothing was changed", .path.display())]
    State {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A name in the configuration is that of no peer.
    #[error("the name {name} is for {key}, which is no peer of the file", key = to_text(.key))]
    UnknownPeer {
        /// The name.
        name: String,
        /// The public key.
        key: NodePublic,
    },
    /// The system gives no sockets.
    #[error("cannot bind a socket on the loopback interface for each peer")]
    Socket(#[source] io::Error),
    /// The names cannot be written.
    #[error("cannot write the names of peers to {}", .path.display())]
    Hosts {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What an endpoint must be made of to carry the packets of an interface.
#[derive(Clone, Debug)]
pub struct Basis {
    /// The key of the interface, by which peers know it.
    pub secret_key: NodePrivate,
    /// The mark that keeps packets out of the tunnel.
    pub mark: Option<u32>,
}

impl Basis {
    fn is_of(&self, interface: &Interface) -> bool {
        let is_key = interface.secret_key.as_ref().is_none_or(|key| key.public() == self.secret_key.public());
        is_key && interface.mark == self.mark
    }
}

/// A proxy.
#[derive(Debug)]
pub struct Proxy {
    config: ProxyConfig,
    state: StateFile,
    found: Mutex<Found>,
    /// What packets are carried by now, or were last.
    local: Mutex<Option<Arc<LocalSide>>>,
}

impl Proxy {
    /// Takes in what an earlier proxy of this interface has changed and not put back.
    ///
    /// # Errors
    ///
    /// If that cannot be read, or a name is that of no peer.
    pub fn new(config: ProxyConfig) -> Result<Self, ProxyError> {
        if let Some((name, key)) =
            config.names.iter().find(|(_, key)| !config.file.peers.iter().any(|peer| peer.key == *key))
        {
            return Err(ProxyError::UnknownPeer { name: name.clone(), key: *key });
        }
        let state = StateFile::new(&config.state_directory, &config.file.interface);
        let found = state.read().map_err(|source| state_error("read", &state, source))?.unwrap_or_default();
        Ok(Self { config, state, found: Mutex::new(found), local: Mutex::new(None) })
    }

    /// The name of the interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.config.file.interface
    }

    /// The keys of the peers whose packets are carried.
    #[must_use]
    pub fn served(&self) -> Vec<NodePublic> {
        self.peers().filter(|(_, refusal)| refusal.is_none()).map(|(peer, _)| peer.key).collect()
    }

    /// What this proxy has counted since the interface had its key and mark.
    #[must_use]
    pub fn stats(&self) -> CarrierStats {
        self.local().as_ref().map(|local| local.stats()).unwrap_or_default()
    }

    /// Says which peers of the file are served, and which are not and why.
    pub fn announce(&self) {
        for (peer, refusal) in self.peers() {
            let (key, name) = (to_text(&peer.key), self.name_of(peer).unwrap_or("without a name"));
            match refusal {
                None => info!(key, name, line = peer.line, "this peer is served"),
                Some(reason) => warn!(key, name, line = peer.line, reason, "this peer is not served"),
            }
        }
    }

    /// The peers of the file, and why one is not served.
    fn peers(&self) -> impl Iterator<Item = (&QuickPeer, Option<&'static str>)> {
        let own = self.config.file.secret_key.as_ref().map(NodePrivate::public);
        self.config.file.peers.iter().map(move |peer| (peer, refusal(peer, own.as_ref())))
    }

    fn name_of<'a>(&'a self, peer: &'a QuickPeer) -> Option<&'a str> {
        let given = self.config.names.iter().find(|(_, key)| *key == peer.key).map(|(name, _)| name);
        given.or(peer.name.as_ref()).map(String::as_str)
    }

    /// Waits until the interface is there and has a key.
    ///
    /// # Errors
    ///
    /// [`ProxyError::Wg`].
    pub async fn wait_for_interface(&self) -> Result<Basis, ProxyError> {
        let changes = NetworkChanges::watch();
        let mut is_said = false;
        loop {
            let interface = Interface::look(self.interface()).await?;
            let is_up = interface.is_some();
            if let Some(interface) = interface
                && let Some(secret_key) = interface.secret_key.or_else(|| self.config.file.secret_key.clone())
            {
                return Ok(Basis { secret_key, mark: interface.mark });
            }
            if !is_said {
                is_said = true;
                let name = self.interface();
                if is_up {
                    warn!(
                        "{name} has no private key, and the file has none: waiting for `wg set {name} private-key FILE`"
                    );
                } else {
                    info!("there is no WireGuard interface {name} yet: waiting for `wg-quick up {name}`");
                }
            }
            // After a change, and from time to time without one.
            let _ = timeout(LOOK, changes.next()).await;
        }
    }

    /// Binds what an endpoint that is made of a [`Basis`] has to [deliver to](towpath::Builder::deliver_to).
    ///
    /// # Errors
    ///
    /// [`ProxyError::Socket`].
    pub fn bind(&self, basis: &Basis) -> Result<Arc<LocalSide>, ProxyError> {
        let local = LocalSide::bind(&basis.secret_key.public(), self.served().into_iter());
        let local = local.map_err(ProxyError::Socket)?;
        *self.local() = Some(local.clone());
        Ok(local)
    }

    /// Carries packets between what was [bound](Self::bind) and an endpoint that was made of the same [`Basis`], delivers to it and
    /// knows the [served](Self::served) peers, until the interface has another key or mark: then another endpoint is needed.
    ///
    /// # Errors
    ///
    /// See [`ProxyError`].
    pub async fn serve(
        &self,
        endpoint: Endpoint,
        local: Arc<LocalSide>,
        basis: &Basis,
    ) -> Result<(), ProxyError> {
        let _carrier = Carrier::start(endpoint, local.clone());
        self.write_names()?;
        let changes = NetworkChanges::watch();
        let mut watched = Watched::default();
        loop {
            match Interface::look(self.interface()).await? {
                None => self.note_gone(&local, &mut watched),
                Some(interface) if !basis.is_of(&interface) => {
                    info!("{} has another key or firewall mark: starting anew with it", self.interface());
                    return Ok(());
                }
                Some(interface) => match self.set_up(&local, &interface, &mut watched).await {
                    // It may have gone meanwhile. If not, the command fails again, and says so again.
                    Err(ProxyError::Wg(error @ WgError::Failed { .. })) => {
                        warn!(%error, "cannot set {} up; trying again", self.interface());
                    }
                    done => done?,
                },
            }
            if timeout(LOOK, changes.next()).await.is_ok() {
                watched.uplinks = None;
            }
        }
    }

    fn note_gone(&self, local: &LocalSide, watched: &mut Watched) {
        local.set_port(0);
        if watched.index.take().is_some() {
            info!("{} has gone: waiting until it is back", self.interface());
            let mut found = self.found();
            found.endpoints.clear();
            found.mtu = None;
        }
    }

    /// Makes WireGuard send its packets to the carrier.
    async fn set_up(
        &self,
        local: &LocalSide,
        interface: &Interface,
        watched: &mut Watched,
    ) -> Result<(), ProxyError> {
        let name = self.interface();
        if watched.index.is_some_and(|index| index != interface.index) {
            // It was gone for less than a look takes.
            self.note_gone(local, watched);
        }
        let is_new = watched.index.is_none();
        let addresses: BTreeMap<_, _> = local.addresses().collect();
        let mut found = self.found().clone();
        let wanted = self.wanted_endpoints(interface, &addresses, &mut found, watched, is_new);
        let uplinks = match watched.uplinks.take() {
            Some(uplinks) => uplinks,
            None => wg::uplinks(name).await?,
        };
        let uplinks = watched.uplinks.insert(uplinks);
        let mtu = self.wanted_mtu(interface, uplinks, &mut found);
        self.note(found)?;
        if let Some(mtu) = mtu {
            info!(
                before = interface.mtu,
                mtu, "the MTU of {name} is set to what fits into a packet of the path"
            );
            wg::set_mtu(name, mtu).await?;
        }
        // Before WireGuard sends, so that its first packet is not taken for a stranger's.
        local.set_port(interface.port);
        let is_known =
            |(key, _): &(NodePublic, _)| interface.peers.get(key).is_some_and(|peer| peer.is_known);
        let (known, unknown): (Vec<_>, Vec<_>) = wanted.into_iter().partition(is_known);
        wg::set_endpoints(name, known.into_iter()).await?;
        for (key, address) in unknown {
            // WireGuard may have begun a handshake in vain, and would begin the next one 5 s later.
            if let Some(peer) = interface.peers.get(&key) {
                wg::make_anew(name, &key, peer, Some(address)).await?;
            }
        }
        if is_new {
            info!(peers = addresses.len(), port = interface.port, "the packets of {name} are carried");
        }
        if is_new && interface.mark.is_some() {
            for uplink in uplinks.iter().filter(|uplink| uplink.filters_strictly()) {
                let filter = format!("net.ipv4.conf.{}.rp_filter", uplink.name);
                warn!(
                    "{filter} is 1, by which the kernel drops what relays send while all routes lead into {name}: run \
                     `sysctl -w {filter}=2`"
                );
            }
        }
        watched.index = Some(interface.index);
        Ok(())
    }

    /// The endpoints that WireGuard has to be given. Notes what it has now.
    fn wanted_endpoints(
        &self,
        interface: &Interface,
        addresses: &BTreeMap<NodePublic, SocketAddr>,
        found: &mut Found,
        watched: &mut Watched,
        is_new: bool,
    ) -> Vec<(NodePublic, SocketAddr)> {
        let mut wanted = Vec::new();
        for (key, address) in addresses {
            let text = to_text(key);
            let Some(peer) = interface.peers.get(key) else {
                if watched.absent.insert(*key) {
                    warn!(
                        key = text,
                        "this peer of the file is not on {}: it is served when it is",
                        self.interface()
                    );
                }
                continue;
            };
            watched.absent.remove(key);
            if peer.endpoint == Some(*address) {
                continue;
            }
            let before = found.endpoints.get(&text).copied();
            let is_ours = before.is_some_and(|before| before.set == peer.endpoint);
            let was = before.filter(|_| is_ours).map_or(peer.endpoint, |before| before.found);
            found.endpoints.insert(text.clone(), Changed { found: was, set: Some(*address) });
            if !is_new && !is_ours && before.is_some() {
                warn!(
                    key = text,
                    "the endpoint of this peer was set by another program: it is set back; `# towpath = no` in its section of the \
                     file leaves the peer to WireGuard"
                );
            }
            wanted.push((*key, *address));
        }
        wanted
    }

    /// The MTU that the interface has to be given: none if it fits, or if the file says one.
    fn wanted_mtu(&self, interface: &Interface, uplinks: &[Uplink], found: &mut Found) -> Option<u32> {
        if self.config.file.mtu.is_some() {
            return None;
        }
        let uplink = uplinks.iter().map(|uplink| uplink.mtu).fold(ETHERNET_MTU, u32::min);
        let fitting = uplink.saturating_sub(OVERHEAD);
        if interface.mtu <= fitting {
            return None;
        }
        let before = found.mtu.filter(|before| before.set == interface.mtu);
        found.mtu =
            Some(Changed { found: before.map_or(interface.mtu, |before| before.found), set: fitting });
        Some(fitting)
    }

    /// Writes down what was found, before it is changed.
    fn note(&self, found: Found) -> Result<(), ProxyError> {
        if *self.found() != found {
            self.state.write(&found).map_err(|source| state_error("write", &self.state, source))?;
            *self.found() = found;
        }
        Ok(())
    }

    /// Writes the names of peers into the file for them, and takes those of an earlier proxy out of another file.
    fn write_names(&self) -> Result<(), ProxyError> {
        let mut found = self.found().clone();
        let before = std::mem::replace(&mut found.hosts, self.config.hosts.clone());
        if let Some(other) = before.filter(|before| Some(before) != self.config.hosts.as_ref()) {
            take_out(&other, self.interface())?;
        }
        self.note(found)?;
        let Some(path) = &self.config.hosts else { return Ok(()) };
        let mut names = Vec::new();
        for peer in &self.config.file.peers {
            let Some(name) = self.name_of(peer) else { continue };
            let before = names.len();
            for is_ipv4 in [true, false] {
                let single = peer.single_addresses().find(|address| address.is_ipv4() == is_ipv4);
                names.extend(single.map(|address: IpAddr| (address, name.to_owned())));
            }
            if names.len() == before {
                warn!(
                    name,
                    line = peer.line,
                    "this peer has a name, and no address among its AllowedIPs that is its own, as 10.0.0.2/32: the name is not \
                     written down"
                );
            }
        }
        let hosts = HostsFile::new(path, self.interface());
        let taken = hosts.write(&names).map_err(|source| ProxyError::Hosts { path: path.clone(), source })?;
        for name in taken {
            warn!(name, "{} has another address for this name as well: take one of them out", path.display());
        }
        Ok(())
    }

    /// Puts everything back as it was found.
    ///
    /// # Errors
    ///
    /// See [`ProxyError`]. What could not be put back is still written down.
    pub async fn put_back(&self) -> Result<(), ProxyError> {
        let found = self.found().clone();
        put_back(self.interface(), &self.state, &found).await?;
        *self.found() = Found::default();
        Ok(())
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self) -> MutexGuard<'_, Option<Arc<LocalSide>>> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a proxy has seen of its interface.
#[derive(Debug, Default)]
struct Watched {
    /// The number of the interface that packets are carried of, while it is there.
    index: Option<u32>,
    /// The interfaces with a default route; `None` if the kernel has told of a change since they were looked at.
    uplinks: Option<Vec<Uplink>>,
    /// Served peers that are not on the interface.
    absent: BTreeSet<NodePublic>,
}

/// Puts back what a proxy of an interface has changed, which may have been killed. Returns whether there was anything.
///
/// # Errors
///
/// See [`ProxyError`]. What could not be put back is still written down.
pub async fn restore(state_directory: &Path, interface: &str) -> Result<bool, ProxyError> {
    let state = StateFile::new(state_directory, interface);
    let found = state.read().map_err(|source| state_error("read", &state, source))?;
    let Some(found) = found else { return Ok(false) };
    put_back(interface, &state, &found).await?;
    Ok(true)
}

async fn put_back(name: &str, state: &StateFile, found: &Found) -> Result<(), ProxyError> {
    if let Some(path) = &found.hosts {
        take_out(path, name)?;
    }
    if let Some(interface) = Interface::look(name).await? {
        let mut endpoints = Vec::new();
        for (key, peer) in &interface.peers {
            // What another program has set since is its own.
            let Some(changed) =
                found.endpoints.get(&to_text(key)).filter(|changed| changed.set == peer.endpoint)
            else {
                continue;
            };
            match changed.found {
                Some(endpoint) => endpoints.push((*key, endpoint)),
                None => wg::make_anew(name, key, peer, None).await?,
            }
        }
        wg::set_endpoints(name, endpoints.into_iter()).await?;
        if let Some(mtu) = found.mtu.filter(|mtu| mtu.set == interface.mtu) {
            wg::set_mtu(name, mtu.found).await?;
        }
    }
    state.remove().map_err(|source| state_error("remove", state, source))
}

/// Takes the names of an interface's peers out of a file.
fn take_out(path: &Path, interface: &str) -> Result<(), ProxyError> {
    let written = HostsFile::new(path, interface).write(&[]);
    written.map(|_| ()).map_err(|source| ProxyError::Hosts { path: path.to_owned(), source })
}

fn state_error(action: &'static str, state: &StateFile, source: io::Error) -> ProxyError {
    ProxyError::State { action, path: state.path().to_owned(), source }
}

/// Why a peer of a file is not served.
fn refusal(peer: &QuickPeer, own: Option<&NodePublic>) -> Option<&'static str> {
    if Some(&peer.key) == own {
        return Some("it has the key of this interface itself");
    }
    match peer.is_served {
        Some(true) => None,
        Some(false) => Some("the file says `# towpath = no`"),
        None if peer.endpoint.is_some() => Some(
            "it has an Endpoint, at which WireGuard reaches it: take that out of the file, or write `# towpath = yes` beneath it",
        ),
        None => None,
    }
}
