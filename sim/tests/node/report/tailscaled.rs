//! The times of a stock client, which the report has beside those of Towpath.
//!
//! tailscaled 1.102.5 under Headscale 0.27.1 with derper 1.102.5, in network namespaces with NATs of nftables, and a wire between
//! the sites that delays by 40 ms there and back: from site to site, and from each site to the relay. Only the first host of a
//! pair sends, a packet each 20 ms. The clients were restarted, and had 6 s before that. Measured once, by hand.

use towpath_sim::Class;

/// What was measured of a pair.
pub(super) struct Measured {
    /// The pair, in the order in which it was measured.
    pub(super) classes: [Class; 2],
    /// The classes of the pair as the page names them.
    pub(super) name: &'static str,
    /// The share of datagrams that is lost in each direction, in percent.
    pub(super) loss: u8,
    /// How often it was measured, and how often the pair became direct.
    pub(super) runs: u32,
    pub(super) direct: u32,
    /// Milliseconds from the first packet to the first echo that came directly in both directions: the median. `None` where the
    /// pair did not become direct in 60 s.
    pub(super) median: Option<u32>,
    /// The least and the most, where they were noted.
    pub(super) range: Option<[u32; 2]>,
}

const fn row(
    classes: [Class; 2],
    name: &'static str,
    loss: u8,
    [direct, runs]: [u32; 2],
    median: u32,
    range: Option<[u32; 2]>,
) -> Measured {
    Measured { classes, name, loss, runs, direct, median: Some(median), range }
}

const fn never(classes: [Class; 2], name: &'static str) -> Measured {
    Measured { classes, name, loss: 0, runs: 3, direct: 0, median: None, range: None }
}

/// All that was measured.
pub(super) const MEASURED: [Measured; 17] = {
    use Class::{A, F, O, P, Poisonable, R, X};
    [
        row([O, O], "O, O", 0, [5, 5], 130, Some([127, 130])),
        row([O, O], "O, O", 5, [15, 15], 143, Some([127, 10_126])),
        row([F, F], "F, F", 0, [5, 5], 127, Some([126, 143])),
        row([F, F], "F, F", 5, [15, 15], 142, Some([125, 10_142])),
        row([O, P], "O, P", 0, [5, 5], 182, Some([181, 5122])),
        row([O, P], "O, P", 5, [5, 5], 5101, Some([182, 10_158])),
        row([P, O], "P, O", 0, [5, 5], 126, None),
        row([P, O], "P, O", 5, [5, 5], 230, Some([130, 5202])),
        row([A, P], "A, P", 0, [5, 5], 5122, Some([183, 5124])),
        row([P, P], "P, P", 0, [5, 5], 5103, Some([182, 5123])),
        row([P, P], "P, P", 5, [15, 15], 5102, Some([181, 10_142])),
        row([O, R], "O or F, R", 0, [10, 10], 182, Some([181, 184])),
        row([O, R], "O or F, R", 5, [10, 10], 182, Some([181, 443])),
        never([Poisonable, Poisonable], "P*, P*"),
        never([P, R], "P, R"),
        never([R, R], "R, R"),
        never([X, O], "X, O"),
    ]
};
