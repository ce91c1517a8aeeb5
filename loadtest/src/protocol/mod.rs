//! What clients and relays say to each other. Above this module everything is in DERP's terms; a relay with another
//! protocol is spoken to in its own words, and what it says is translated.

use anyhow::Result;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use towpath_relay_proto::session::ClientSession;
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::pool::BufferPool;

pub(crate) mod iroh;

/// A protocol of relays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum RelayProtocol {
    /// Tailscale's.
    #[default]
    Derp,
    /// That of iroh-relay 1.4, one datagram in a frame.
    Iroh,
}

impl RelayProtocol {
    /// Appends what says `frame` to a relay.
    pub(crate) fn encode(self, frame: &ClientFrame<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Derp => frame.encode(out),
            Self::Iroh => iroh::encode(frame, out),
        }
    }
}

/// A client's own key.
#[derive(Debug)]
pub(crate) enum ClientKey {
    Derp(NodePrivate),
    Iroh(Ed25519KeyPair),
}

impl ClientKey {
    /// A key from 32 random bytes.
    pub(crate) fn from_random(protocol: RelayProtocol, bytes: [u8; 32]) -> Self {
        match protocol {
            RelayProtocol::Derp => Self::Derp(NodePrivate::from_random(bytes)),
            RelayProtocol::Iroh => Self::Iroh(
                Ed25519KeyPair::from_seed_unchecked(&bytes).expect("any 32 bytes are a seed of Ed25519"),
            ),
        }
    }

    /// What the client is called by others: 32 bytes in either protocol.
    pub(crate) fn public(&self) -> NodePublic {
        match self {
            Self::Derp(key) => key.public(),
            Self::Iroh(key) => {
                let bytes = key.public_key().as_ref().try_into();
                NodePublic::from_bytes(bytes.expect("public keys of Ed25519 have 32 bytes"))
            }
        }
    }
}

/// The place of a connection in what its relay says.
#[derive(Debug)]
pub(crate) enum RelaySession {
    Derp(ClientSession),
    Iroh(iroh::IrohSession),
}

impl RelaySession {
    /// The next frame from the relay; `None` when `input` is used up.
    pub(crate) fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        pool: &mut BufferPool,
    ) -> Result<Option<ServerFrame<'s>>> {
        Ok(match self {
            Self::Derp(session) => session.next(input, pool)?,
            Self::Iroh(session) => session.next(input)?,
        })
    }

    pub(crate) const fn protocol(&self) -> RelayProtocol {
        match self {
            Self::Derp(_) => RelayProtocol::Derp,
            Self::Iroh(_) => RelayProtocol::Iroh,
        }
    }
}
