//! The jobs of the worker processes that send and receive flows, for all scenarios that consist of flows.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::flow::receiver::{self, ReceiveJob, ReceiverOutcome};
use crate::flow::sender::{self, SendJob, SenderOutcome};
use crate::process::Parent;
use crate::target::LoadTarget;

/// The part of one worker process in a load of flows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FlowJob {
    Send(SendJob),
    Receive(ReceiveJob),
}

/// The outcome of a [`FlowJob`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FlowOutcome {
    Sent(SenderOutcome),
    Received(ReceiverOutcome),
}

impl FlowJob {
    /// Does the job.
    pub(crate) fn work(self, target: &LoadTarget, parent: &mut Parent) -> Result<FlowOutcome> {
        Ok(match self {
            Self::Send(job) => FlowOutcome::Sent(sender::run(target, job, parent)?),
            Self::Receive(job) => FlowOutcome::Received(receiver::run(target, job, parent)?),
        })
    }
}
