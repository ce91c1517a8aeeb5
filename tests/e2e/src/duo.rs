//! Our endpoint on the first host of a stage, and a stock peer on the second.

use std::net::SocketAddr;

use towpath::{Endpoint, PeerConfig, Pong};
use towpath_lab::{Pair, Runtime, Stage};

use crate::endpoint::bind;
use crate::magicsock::Magicsock;
use crate::region::{Kind, REGION, Region};
use crate::talk::{First, Outcome, Talk};
use crate::turn::Programs;

/// The two, and what they run on.
#[derive(Debug)]
pub struct Duo {
    // Dropped in this order: what runs in a namespace before the namespace.
    talk: Option<Talk>,
    first: First,
    runtime: Runtime,
    _region: Region,
    _stage: Stage,
}

impl Duo {
    /// Builds the stage of a pair, and starts relays and both peers. When this returns, both are at home and know each other, and
    /// nothing has gone from one to the other.
    pub fn start(kind: Kind, programs: &Programs, pair: &Pair, first: First) -> Self {
        let stage = Stage::build(pair).unwrap_or_else(|error| panic!("{pair:?}: {error}"));
        let region = Region::start(kind, programs, &stage);
        let mut stock = Magicsock::start(programs, stage.hosts[1].namespace(), &region);
        let runtime = stage.hosts[0].namespace().runtime().expect("a runtime");
        let peer = PeerConfig {
            region: Some(REGION),
            disco: Some(stock.disco()),
            addresses: if first == First::Ours { stock.endpoints().to_vec() } else { Vec::new() },
            ..PeerConfig::new(stock.key())
        };
        let endpoint = runtime.block_on(bind(Endpoint::builder().relay_map(region.map()), peer));
        let endpoints = if first == First::Stock { endpoint.direct_addresses() } else { Vec::new() };
        stock.set_peer(&endpoint.key(), &endpoint.disco_key(), &endpoints);
        let talk = Some(Talk::new(endpoint, stock));
        Self { talk, first, runtime, _region: region, _stage: stage }
    }

    /// Lets one of them send packets and the other send each back, until both are direct and have been for a while, or until they
    /// have had the time for that and are not.
    pub fn talk(&mut self) -> Outcome {
        let first = self.first;
        let mut talk = self.talk.take().expect("it comes back");
        let (talk, outcome) = self.runtime.block_on(async move {
            let outcome = talk.run(first).await;
            (talk, outcome)
        });
        self.talk = Some(talk);
        outcome
    }

    /// Pings in both directions: the answer that our endpoint gets, and the address from which the stock peer gets its own, `None`
    /// for the relay.
    pub fn ping(&mut self) -> (Pong, Option<SocketAddr>) {
        let mut talk = self.talk.take().expect("it comes back");
        let (talk, pongs) = self.runtime.block_on(async move {
            let pongs = talk.ping().await;
            (talk, pongs)
        });
        self.talk = Some(talk);
        pongs
    }
}
