//! The protocols of relays. Other modules deal in DERP frames only. Frames for a relay with another protocol are
//! translated here.

use anyhow::Result;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use towpath_relay_proto::session::ClientSession;
use towpath_wire::derp::frame::{ClientFrame, ServerFrame};
use towpath_wire::key::{NodePrivate, NodePublic};
use towpath_wire::pool::BufferPool;

pub(crate) mod iroh;

/// The protocol that a relay speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub(crate) enum RelayProtocol {
    /// Tailscale's DERP.
    #[default]
    Derp,
    /// The protocol of iroh-relay 1.4, with one datagram in each frame.
    Iroh,
}

impl RelayProtocol {
    /// Appends `frame` to `out`, encoded in this protocol.
    pub(crate) fn encode(self, frame: &ClientFrame<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Derp => frame.encode(out),
            Self::Iroh => iroh::encode(frame, out),
        }
    }
}

/// The private key of a client.
#[derive(Debug)]
pub(crate) enum ClientKey {
    Derp(NodePrivate),
    Iroh(Ed25519KeyPair),
}

impl ClientKey {
    /// Makes a key from 32 random bytes.
    pub(crate) fn from_random(protocol: RelayProtocol, bytes: [u8; 32]) -> Self {
        match protocol {
            RelayProtocol::Derp => Self::Derp(NodePrivate::from_random(bytes)),
            RelayProtocol::Iroh => Self::Iroh(
                Ed25519KeyPair::from_seed_unchecked(&bytes).expect("any 32 bytes are a seed for Ed25519"),
            ),
        }
    }

    /// The public key, by which other clients address this one: 32 bytes in either protocol.
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

/// The state of a connection in its relay's protocol.
#[derive(Debug)]
pub(crate) enum RelaySession {
    Derp(ClientSession),
    Iroh(iroh::IrohSession),
}

impl RelaySession {
    /// Decodes the next frame from the relay; `None` when `input` is used up.
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
