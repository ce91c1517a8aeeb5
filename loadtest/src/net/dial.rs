//! One connection: dialled and logged in, in the protocol of the target.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Error, Result, anyhow, bail};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use towpath_relay_client::{CONNECT_TIMEOUT, DialStep, Dialer, Raw, TlsVersions, Trust, client_config};
use towpath_tls::{Parts, RecordLayer, Stream};

use crate::net::link::RelayLink;
use crate::protocol::{ClientKey, RelayProtocol, RelaySession, iroh};
use crate::target::{LoadTarget, TargetSecurity, TargetTrust};

/// The dialler for a relay, which any number of connections can share.
#[derive(Debug)]
pub(crate) enum Connector {
    Derp(Box<Dialer>),
    Iroh { address: SocketAddr, name: String, config: Arc<ClientConfig> },
}

/// The reason why a connection could not be made.
#[derive(Debug)]
pub(crate) struct ConnectError {
    /// The step of the connection that failed.
    pub(crate) step: DialStep,
    pub(crate) error: Error,
}

impl From<ConnectError> for Error {
    fn from(failure: ConnectError) -> Self {
        failure.error.context(format!("connecting failed at the step `{}`", failure.step.label()))
    }
}

impl Connector {
    pub(crate) fn new(target: &LoadTarget) -> Result<Self> {
        let LoadTarget { address, name, .. } = target;
        let (trust, versions) = match &target.security {
            TargetSecurity::Plain if target.protocol == RelayProtocol::Iroh => {
                bail!("--plain does not work with --protocol iroh: iroh-relay needs TLS")
            }
            TargetSecurity::Plain => {
                let dialer = Dialer::plain(name, address.port()).at(*address);
                return Ok(Self::Derp(Box::new(dialer)));
            }
            TargetSecurity::Tls(trust) => (trust, TlsVersions::Both),
            TargetSecurity::Tls12(trust) => (trust, TlsVersions::Only12),
        };
        let trust = match trust {
            TargetTrust::Pin(pin) => Trust::Pin(*pin),
            TargetTrust::Anyone => Trust::Anyone,
        };
        Ok(match target.protocol {
            RelayProtocol::Derp => {
                let dialer = Dialer::tls(name, address.port(), &trust, versions)?.at(*address);
                Self::Derp(Box::new(dialer))
            }
            RelayProtocol::Iroh => {
                let config = client_config(&trust, versions)?;
                Self::Iroh { address: *address, name: name.clone(), config }
            }
        })
    }

    /// Connects and logs in with `key`. Returns when the relay has confirmed the login.
    pub(crate) async fn connect(&self, key: &ClientKey) -> Result<RelayLink, ConnectError> {
        match (self, key) {
            (Self::Derp(dialer), ClientKey::Derp(key)) => {
                let client = dialer.connect(key).await;
                let client =
                    client.map_err(|error| ConnectError { step: error.step(), error: error.into() })?;
                let raw = client
                    .into_raw()
                    .map_err(|error| ConnectError { step: DialStep::Login, error: error.into() })?;
                let Raw { socket, tls, session, incoming, plaintext } = raw;
                Ok(RelayLink::new(socket, tls, RelaySession::Derp(session), incoming, plaintext))
            }
            (Self::Iroh { address, name, config }, ClientKey::Iroh(key)) => {
                let mut step = DialStep::Tcp;
                let steps = connect_iroh(*address, name, config, key, &mut step);
                let connected = tokio::time::timeout(CONNECT_TIMEOUT, steps).await;
                let connected = connected.unwrap_or_else(|_elapsed| {
                    Err(anyhow!("no login within {} s", CONNECT_TIMEOUT.as_secs()))
                });
                connected.map_err(|error| ConnectError { step, error })
            }
            _ => Err(ConnectError {
                step: DialStep::Login,
                error: anyhow!("the key is for another protocol than the target"),
            }),
        }
    }
}

async fn connect_iroh(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
    key: &aws_lc_rs::signature::Ed25519KeyPair,
    step: &mut DialStep,
) -> Result<RelayLink> {
    let socket = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    socket.set_nodelay(true)?;
    *step = DialStep::Tls;
    let server_name = ServerName::try_from(name.to_owned())?;
    let mut stream = Stream::connect(socket, config.clone(), server_name).await?;
    *step = DialStep::Login;
    let (session, rest) = iroh::log_in(&mut stream, name, key).await?;
    let Parts { io, reader, writer, incoming, plaintext } = stream.into_parts(RecordLayer::Own)?;
    let early = [rest, plaintext].concat();
    Ok(RelayLink::new(io.into_std()?, Some((reader, writer)), RelaySession::Iroh(session), incoming, early))
}
