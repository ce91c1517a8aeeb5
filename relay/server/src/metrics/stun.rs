//! What the STUN server tells.

use std::sync::Arc;

use prometheus::Opts;
use prometheus::core::{Collector, Desc, Describer};
use prometheus::proto::{MetricFamily, MetricType};
use towpath_stun::{AnswerKind, NotStun, Snapshot, StunCounters, Withheld};

use super::{Page, Sample};

const REQUESTS: &str = "stun_requests";
const REQUESTS_HELP: &str = "STUN datagrams by what became of them";

/// Reads the STUN server when Prometheus asks.
pub(crate) struct StunScrape {
    counters: Arc<StunCounters>,
    /// By which a registry tells collectors apart: one of what is collected is enough.
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
        let mut page = Page::default();
        page.stun(&self.counters.snapshot());
        page.0
    }
}

impl Page {
    fn stun(&mut self, counts: &Snapshot) {
        self.by(
            "disposition",
            REQUESTS,
            REQUESTS_HELP,
            [
                ("success", counts.success),
                ("not_stun", counts.not_stun_total()),
                ("read_error", counts.read_error),
                ("write_error", counts.write_error),
            ],
        );
        let help = "STUN requests with an answer, by address family";
        self.by("family", "stun_addrfamily", help, [("ipv4", counts.ipv4), ("ipv6", counts.ipv6)]);
        let help = "STUN requests with an answer, by what it says";
        let answers = AnswerKind::ALL.iter().map(|kind| kind.label()).zip(counts.answers);
        self.by("answer", "towpath_stun_answers_total", help, answers);
        let help = "STUN datagrams without an answer, by reason";
        let not_stun = NotStun::ALL.iter().map(|reason| reason.label()).zip(counts.not_stun);
        let withheld = Withheld::ALL.iter().map(|reason| reason.label()).zip(counts.withheld);
        self.by("reason", "towpath_stun_unanswered_total", help, not_stun.chain(withheld));
    }

    /// A family of counters that differ in one label.
    fn by(
        &mut self,
        label: &'static str,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (&'static str, u64)>,
    ) {
        let labelled: Vec<_> = values.into_iter().map(|(of, value)| ([(label, of)], value)).collect();
        let samples: Vec<Sample<'_>> = labelled.iter().map(|(labels, value)| (&labels[..], *value)).collect();
        self.family(MetricType::COUNTER, name, help, &samples);
    }
}
