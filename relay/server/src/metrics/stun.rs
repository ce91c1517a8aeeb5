//! The numbers of the STUN server.

use std::sync::Arc;

use prometheus::Opts;
use prometheus::core::{Collector, Desc, Describer};
use prometheus::proto::MetricFamily;
use towpath_service::metrics::{Families, Labelled};
use towpath_stun::{AnswerKind, NotStun, Snapshot, StunCounters, Withheld};

const REQUESTS: &str = "stun_requests";
const REQUESTS_HELP: &str = "STUN datagrams: `success` was answered, `not_stun` is no request";

/// Reads the STUN server when Prometheus asks.
pub(crate) struct StunScrape {
    counters: Arc<StunCounters>,
    /// The description by which a registry tells collectors apart; one of the collected families is enough.
    desc: Desc,
}

impl StunScrape {
    pub(crate) fn new(counters: Arc<StunCounters>) -> prometheus::Result<Self> {
        Ok(Self { counters, desc: Opts::new(REQUESTS, REQUESTS_HELP).describe()? })
    }
}

impl Collector for StunScrape {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        add_stun(&mut families, &self.counters.snapshot());
        families.0
    }
}

fn add_stun(families: &mut Families, counts: &Snapshot) {
    let dispositions = [
        ("success", counts.success),
        ("not_stun", counts.not_stun_total()),
        ("read_error", counts.read_error),
        ("write_error", counts.write_error),
    ];
    families.counters(REQUESTS, REQUESTS_HELP, by("disposition", dispositions));
    let help = "STUN requests with an answer, by address family";
    let answered = [("ipv4", counts.ipv4), ("ipv6", counts.ipv6)];
    families.counters("stun_addrfamily", help, by("family", answered));
    let help = "STUN requests with an answer, by what the answer says";
    let answers = AnswerKind::ALL.map(AnswerKind::label).into_iter().zip(counts.answers);
    families.counters("towpath_stun_answers_total", help, by("answer", answers));
    let help = "STUN datagrams without an answer, by reason";
    let not_stun = NotStun::ALL.map(NotStun::label).into_iter().zip(counts.not_stun);
    let unanswered = Withheld::ALL.map(Withheld::label).into_iter().zip(counts.withheld);
    families.counters("towpath_stun_unanswered_total", help, by("reason", not_stun.chain(unanswered)));
}

/// Values that differ in one label.
fn by(
    label: &'static str,
    values: impl IntoIterator<Item = (&'static str, u64)>,
) -> impl Iterator<Item = Labelled<[(&'static str, &'static str); 1]>> {
    values.into_iter().map(move |(of, value)| ([(label, of)], value))
}
