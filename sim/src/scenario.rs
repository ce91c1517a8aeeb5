//! A pair to which things happen, as a line of text that can be shrunk and run again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use towpath_wire::time::Instant;

use crate::action::Action;
use crate::id::{NatId, Place};
use crate::link::Traffic;
use crate::machine::Machine;
use crate::nat::Class;
use crate::pair::{Pair, Seat, Stage, Timing};
use crate::random::Random;
use crate::sweep::shrink;

/// Something that happens to a pair. A side is 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A host moves behind a new NAT of a class.
    Roam {
        /// The side.
        side: usize,
        /// The class of the NAT.
        class: Class,
        /// How many milliseconds the host has no address in between.
        gap: u64,
    },
    /// The NAT in front of a host loses its mappings.
    Rebind {
        /// The side.
        side: usize,
        /// Whether the external endpoints of before are not used again.
        new_ports: bool,
    },
    /// A host is suspended.
    Suspend {
        /// The side.
        side: usize,
        /// For so many milliseconds.
        lasts: u64,
    },
    /// The relay dies.
    Kill,
    /// The relay goes silent.
    Silence,
    /// The relay works again.
    Restore,
    /// The link from one host to the other lets no datagrams through from now on.
    Block {
        /// The side that sends.
        side: usize,
    },
    /// It does again.
    Unblock {
        /// The side that sends.
        side: usize,
    },
}

/// A pair, and what happens to it at which millisecond.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The pair.
    pub pair: Pair,
    /// What happens, in the order of time.
    pub faults: Vec<(u64, Fault)>,
}

impl Scenario {
    /// A scenario that is drawn with a seed: two classes with IPv4, a timing, perhaps loss, and up to six faults from the
    /// third second to the tenth.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        let mut random = Random::stream(seed, 1 << 43);
        let random = &mut random;
        let classes = [draw_class(random), draw_class(random)];
        let timing = if random.happens(0.5) { Timing::NEAR } else { Timing::FAR };
        let loss = [0.0, 0.0, 0.01, 0.05][draw(random, 4)];
        let lost = if random.happens(0.5) { Traffic::Udp } else { Traffic::Everything };
        let pair = Pair::new(classes[0], classes[1], timing, seed).losing(loss, lost);
        let mut faults: Vec<(u64, Fault)> =
            (0..draw(random, 7)).map(|_| (3000 + random.below(7000), draw_fault(random))).collect();
        faults.sort_by_key(|(at, _)| *at);
        Self { pair, faults }
    }

    /// Builds the world, in which the faults will happen.
    pub fn build<M: Machine>(&self, make: impl FnMut(Seat) -> M) -> Stage<M> {
        let mut stage = self.pair.build(make);
        let mut nats = stage.nats;
        for (at, fault) in &self.faults {
            if let Some(action) = fault.action(&mut stage, &mut nats) {
                stage.world.at(Instant::ZERO + Duration::from_millis(*at), action);
            }
        }
        stage
    }

    /// When the last fault begins.
    #[must_use]
    pub fn last_fault(&self) -> Option<Instant> {
        let last = self.faults.iter().map(|(at, _)| *at).max()?;
        Some(Instant::ZERO + Duration::from_millis(last))
    }

    /// Takes away each fault, and the loss, without which the scenario fails as well. It must fail.
    #[must_use]
    pub fn shrink(&self, fails: impl Fn(&Self) -> bool) -> Self {
        let with = |pair: Pair, faults: &[(u64, Fault)]| Self { pair, faults: faults.to_vec() };
        let lossless = with(Pair { loss: 0.0, ..self.pair }, &self.faults);
        let pair = if fails(&lossless) { lossless.pair } else { self.pair };
        with(pair, &shrink(&self.faults, |faults| fails(&with(pair, faults))))
    }
}

fn draw(random: &mut Random, count: u64) -> usize {
    usize::try_from(random.below(count)).unwrap_or(0)
}

/// A class with IPv4 that lets UDP out.
fn draw_class(random: &mut Random) -> Class {
    let usual =
        [Class::O, Class::F, Class::A, Class::P, Class::Poisonable, Class::M, Class::S, Class::B, Class::R];
    usual[draw(random, usual.len() as u64)]
}

fn draw_fault(random: &mut Random) -> Fault {
    let side = draw(random, 2);
    match random.below(8) {
        0 => {
            let gap = [0, 100, 1000][draw(random, 3)];
            Fault::Roam { side, class: draw_class(random), gap }
        }
        1 => Fault::Rebind { side, new_ports: random.happens(0.5) },
        2 => Fault::Suspend { side, lasts: 1 + random.below(5000) },
        3 => Fault::Kill,
        4 => Fault::Silence,
        5 => Fault::Restore,
        6 => Fault::Block { side },
        _ => Fault::Unblock { side },
    }
}

impl Fault {
    /// What is done to the world. `nats` are those in front of the hosts at that time. `None` if there is no NAT that
    /// could lose its mappings.
    fn action<M: Machine>(self, stage: &mut Stage<M>, nats: &mut [Option<NatId>; 2]) -> Option<Action> {
        let block = |side: usize, blocked| {
            let [from, to] = [stage.sites[side], stage.sites[1 - side]];
            Action::Block { from, to, blocked }
        };
        Some(match self {
            Self::Roam { side, class, gap } => {
                let (place, nat) = stage.add_place(side, class);
                nats[side] = nat;
                let gap = Duration::from_millis(gap);
                Action::Roam { host: stage.hosts[side], places: vec![place], gap }
            }
            Self::Rebind { side, new_ports } => Action::Rebind { nat: nats[side]?, new_ports },
            Self::Suspend { side, lasts } => {
                Action::Suspend { host: stage.hosts[side], lasts: Duration::from_millis(lasts) }
            }
            Self::Kill => Action::KillRelay(stage.region),
            Self::Silence => Action::SilenceRelay(stage.region),
            Self::Restore => Action::RestoreRelay(stage.region),
            Self::Block { side } => block(side, true),
            Self::Unblock { side } => block(side, false),
        })
    }
}

impl<M: Machine> Stage<M> {
    /// A place for a host at its site, behind a new NAT of a class.
    pub fn add_place(&mut self, side: usize, class: Class) -> (Place, Option<NatId>) {
        let root = class.root(self.sites[side]);
        let nat = class.nat().map(|nat| self.world.add_nat(root, nat));
        (nat.map_or(root, Place::Behind), nat)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Roam { side, class, gap } => write!(f, "roam {side} {class} {gap}"),
            Self::Rebind { side, new_ports: true } => write!(f, "rebind {side} new"),
            Self::Rebind { side, new_ports: false } => write!(f, "rebind {side} same"),
            Self::Suspend { side, lasts } => write!(f, "suspend {side} {lasts}"),
            Self::Kill => write!(f, "kill"),
            Self::Silence => write!(f, "silence"),
            Self::Restore => write!(f, "restore"),
            Self::Block { side } => write!(f, "block {side}"),
            Self::Unblock { side } => write!(f, "unblock {side}"),
        }
    }
}

/// The scenario in one line, from which it can be read again: the pair, then each fault behind its millisecond.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pair)?;
        self.faults.iter().try_for_each(|(at, fault)| write!(f, ", {at} {fault}"))
    }
}

/// A text that is not a scenario as it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAScenario;

impl FromStr for Scenario {
    type Err = NotAScenario;

    fn from_str(text: &str) -> Result<Self, NotAScenario> {
        let mut parts = text.split(',');
        let pair = parts.next().and_then(|pair| pair.parse().ok()).ok_or(NotAScenario)?;
        let faults = parts.map(read_fault).collect::<Option<_>>().ok_or(NotAScenario)?;
        Ok(Self { pair, faults })
    }
}

fn read_fault(text: &str) -> Option<(u64, Fault)> {
    let side = |word: &str| word.parse().ok().filter(|side| *side < 2_usize);
    let words: Vec<&str> = text.split_whitespace().collect();
    let (at, words) = words.split_first()?;
    let fault = match *words {
        ["roam", word, class, gap] => {
            Fault::Roam { side: side(word)?, class: class.parse().ok()?, gap: gap.parse().ok()? }
        }
        ["rebind", word, ports @ ("new" | "same")] => {
            Fault::Rebind { side: side(word)?, new_ports: ports == "new" }
        }
        ["suspend", word, lasts] => Fault::Suspend { side: side(word)?, lasts: lasts.parse().ok()? },
        ["kill"] => Fault::Kill,
        ["silence"] => Fault::Silence,
        ["restore"] => Fault::Restore,
        ["block", word] => Fault::Block { side: side(word)? },
        ["unblock", word] => Fault::Unblock { side: side(word)? },
        _ => return None,
    };
    Some((at.parse().ok()?, fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_read_as_printed() {
        for seed in 0..1000 {
            let scenario = Scenario::random(seed);
            assert_eq!(scenario.to_string().parse(), Ok(scenario));
        }
        let text = "P P* 80 40 50 0 udp 7, 3000 roam 0 R 100, 3001 rebind 1 new, 4000 suspend 1 50, 5000 kill, \
                    5000 silence, 6000 restore, 7000 block 0, 7000 unblock 1, 8000 rebind 0 same";
        let scenario: Scenario = text.parse().unwrap();
        assert_eq!((scenario.to_string().as_str(), scenario.faults.len()), (text, 9));
        assert_eq!(scenario.last_fault(), Some(Instant::from_nanos(8_000_000_000)));
        for broken in ["", "P P 1 2 3 0 udp 7, ", "P P 1 2 3 0 udp 7, 5 block 2", "P P 1 2 3 0 udp 7, x kill"]
        {
            assert_eq!(broken.parse::<Scenario>(), Err(NotAScenario), "{broken}");
        }
    }

    #[test]
    fn a_scenario_shrinks_to_what_it_fails_by() {
        let scenario = (0..).map(Scenario::random).find(|scenario| {
            scenario.pair.loss > 0.0 && scenario.faults.iter().any(|(_, fault)| *fault == Fault::Kill)
        });
        let scenario = scenario.unwrap();
        let fails = |scenario: &Scenario| scenario.faults.iter().any(|(_, fault)| *fault == Fault::Kill);
        let small = scenario.shrink(fails);
        assert!(small.faults.len() == 1 && fails(&small) && small.pair.loss == 0.0, "{small}");
        let lossy = scenario.shrink(|scenario| scenario.pair.loss > 0.0);
        assert!(lossy.faults.is_empty() && lossy.pair.loss > 0.0, "{lossy}");
    }
}
