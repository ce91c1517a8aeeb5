//! A run of a cold pair, and what must be true of each one by itself.

use std::time::Duration;

use towpath_sim::{Delivery, Direct, Pair, Verdict};
use towpath_wire::time::Instant;

use super::driver::{START, millis, started, until_direct};

/// Bytes over the relay besides the data that a cold pair may cost, both ways.
const SIGNALLING: u64 = 900;
/// Bytes of probes that a pair may cost that cannot become direct, both ways.
const PROBING: u64 = 2048;

/// What came of a run.
pub(crate) struct Run {
    pub(crate) pair: Pair,
    pub(crate) verdict: Verdict,
    pub(crate) direct: Option<Duration>,
    /// From the first packet to its arrival.
    first: Option<Duration>,
    missing: u64,
    doubles: u64,
    /// Bytes over the relay besides the data, and bytes of probes on UDP to other hosts than STUN servers, of both sides.
    signalling: u64,
    probing: u64,
}

impl Run {
    /// Runs a pair with data each 20 ms from its first host to the other.
    pub(crate) fn of(pair: Pair) -> Self {
        let (mut stage, flows) = started(&pair, millis(2900), false);
        let [here, there] = stage.hosts;
        let verdict = stage.world.verdict(here, there);
        let direct = until_direct(&mut stage);
        // Those on their way arrive.
        stage.world.run_until(stage.world.now() + millis(500));
        let end = Instant::from(START) + millis(3500);
        if direct.is_none() {
            stage.world.run_until(end);
        }
        let account = stage.world.account(flows[0]);
        let in_flight = u64::try_from(pair.timing.relay.as_millis() / 20 + 1).unwrap();
        let sent = stage.hosts.map(|host| stage.world.sent(host).clone());
        Self {
            pair,
            verdict,
            direct,
            first: account.first().map(Delivery::delay),
            missing: account.missing().saturating_sub(if direct.is_some() { in_flight } else { 0 }),
            doubles: account.doubles,
            signalling: sent.iter().map(|sent| sent.signalling.bytes).sum(),
            probing: sent.iter().map(|sent| sent.probes_to(|to| to.port() != 3478).bytes).sum(),
        }
    }

    /// What is wrong with this run, behind the pair as `TOWPATH_SIM_PAIR` takes it. What a run with loss has cost is left to
    /// [`Self::cost_fault`].
    pub(crate) fn fault(&self) -> Option<String> {
        let cost = || self.cost_fault().filter(|_| self.pair.loss == 0.0);
        let fault = self.path_fault().or_else(|| self.data_fault()).or_else(cost)?;
        Some(format!("{}: {fault}", self.pair))
    }

    /// What is wrong with the path: it is direct where it can be, and only there.
    fn path_fault(&self) -> Option<String> {
        let is_right = self.direct.is_some() == (self.verdict.direct == Direct::Must);
        (!is_right).then(|| format!("direct after {:?}, and the oracle says {:?}", self.direct, self.verdict))
    }

    /// What is wrong with the data: it goes over the relay at once, and the switch to the direct path loses and doubles nothing.
    fn data_fault(&self) -> Option<String> {
        let Self { pair, first, missing, doubles, .. } = self;
        if first.is_none_or(|first| first > pair.timing.relay / 2 + millis(5)) {
            return Some(format!("the first packet took {first:?}"));
        }
        let is_lost = *missing > 0 && pair.loss == 0.0;
        (is_lost || *doubles > 0).then(|| format!("{missing} packets are missing, {doubles} are doubled"))
    }

    /// What is wrong with the cost: signalling is short, and a pair that cannot become direct does not go on probing.
    pub(crate) fn cost_fault(&self) -> Option<String> {
        let Self { signalling, probing, .. } = self;
        let is_relayed = self.verdict.direct == Direct::Cannot;
        (*signalling > SIGNALLING || is_relayed && *probing > PROBING)
            .then(|| format!("{signalling} bytes over the relay, {probing} bytes of probes"))
    }
}
