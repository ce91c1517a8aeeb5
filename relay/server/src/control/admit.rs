//! The stage admit: asks every policy that needs an outside answer, under one deadline, and then decides.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use towpath_relay_proto::admission::{Admission, Answer, Answers, Grant};
use towpath_wire::derp::info::Introduction;

use super::refusal::Refusal;

/// How long all policies together may take. A policy that does not answer in time counts as [`Answer::CannotTell`].
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A policy outside of the relay. There is none yet, so the relay is open.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AdmissionPolicy {}

impl AdmissionPolicy {
    /// Asks the policy about a client.
    async fn ask(self) -> Answer {
        match self {}
    }
}

/// Decides on the login of a client at the address `client` that has proved its key.
pub(super) async fn admit(
    admission: &Admission,
    policies: &[AdmissionPolicy],
    introduction: &Introduction,
    client: SocketAddr,
) -> Result<Grant, Refusal> {
    let answers = ask_all(policies.iter().map(|policy| policy.ask()), ASK_TIMEOUT).await;
    admission.admit(introduction, client, &answers).map_err(Refusal::NotAdmitted)
}

/// Returns the answers to `questions`, which are asked in parallel and get `limit` together.
async fn ask_all<Q>(questions: impl IntoIterator<Item = Q>, limit: Duration) -> Answers
where
    Q: Future<Output = Answer> + Send + 'static,
{
    let deadline = Instant::now() + limit;
    let mut asked = JoinSet::new();
    let mut answers = Vec::new();
    for (index, question) in questions.into_iter().enumerate() {
        answers.push(Answer::CannotTell);
        asked.spawn(async move { (index, question.await) });
    }
    while let Ok(Some(answered)) = timeout_at(deadline, asked.join_next()).await {
        if let Ok((index, answer)) = answered {
            answers[index] = answer;
        }
    }
    Answers(answers)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::Pin;

    use super::*;

    type Question = Pin<Box<dyn Future<Output = Answer> + Send>>;

    #[tokio::test]
    async fn a_policy_that_does_not_answer_in_time_or_panics_cannot_tell() {
        let questions: Vec<Question> = vec![
            Box::pin(ready(Answer::Refuse)),
            Box::pin(pending()),
            Box::pin(async { panic!("a policy that fails") }),
            Box::pin(ready(Answer::Allow)),
        ];
        let answers = ask_all(questions, Duration::from_millis(50)).await;
        let expected = [Answer::Refuse, Answer::CannotTell, Answer::CannotTell, Answer::Allow];
        assert_eq!(answers, Answers(expected.into()));
    }

    #[tokio::test]
    async fn without_policies_there_are_no_answers() {
        assert_eq!(ask_all(Vec::<Question>::new(), ASK_TIMEOUT).await, Answers::default());
    }
}
