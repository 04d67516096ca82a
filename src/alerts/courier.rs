//! The task that delivers alerts, beside the releases and never in their way.

use super::call::{CallError, Wire};
use super::desk::{Desk, Failure, Job, Posted, Tally, Trouble, Upshot};
use super::directory::Directory;
use super::letter::{LetterError, letter};
use super::payload::Origin;
use super::retry::Pace;
use crate::api::Alert;
use reqwest::StatusCode;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

/// Delivers the alerts of outboxes: at least once, in order for each Canary and provider, again
/// and again until it succeeds or a day has passed. A cheap handle to its task.
///
/// It remembers nothing that status does not hold: a new one that is handed the same outbox goes
/// on where the old one was, and repeats at most the alerts that were in flight.
#[derive(Clone)]
pub struct Courier(Arc<Shared>);

struct Shared {
    desk: Mutex<Desk>,
    bell: Notify,
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Courier({:?})", self.tally())
    }
}

impl Courier {
    /// Starts the task. Abort it to stop: at worst, what is in flight is delivered again by the next one.
    ///
    /// `news` is called when [`Self::delivered`], [`Self::abandoned`] or [`Self::trouble`] has
    /// changed for a Canary. It must not block.
    pub fn start(
        directory: Arc<dyn Directory>,
        wire: Arc<dyn Wire>,
        pace: Pace,
        news: impl Fn(&Origin) + Send + 'static,
    ) -> (Self, JoinHandle<()>) {
        let courier = Self(Arc::new(Shared {
            desk: Mutex::new(Desk::new(pace)),
            bell: Notify::new(),
        }));
        let round = Round {
            courier: courier.clone(),
            directory,
            wire,
            pace,
            news,
        };
        (courier, tokio::spawn(round.run()))
    }

    /// Takes over a Canary's outbox as it stands in status now; to be called after each write of
    /// it, an empty one included. Idempotent: what is queued, in flight or settled is not sent
    /// again, and what is gone from the outbox is let go. Never blocks on a delivery.
    pub fn post(&self, canary: &Origin, outbox: &[Alert]) -> Posted {
        let posted = self.desk().post(canary, outbox, Instant::now());
        self.0.bell.notify_one();
        posted
    }

    /// The Canary is gone. What is queued is still tried for ten minutes; nothing is kept after that.
    pub fn forget(&self, uid: &str) {
        self.desk().forget(uid);
    }

    /// Puts everything down and calls off what is in flight, as when another operator takes over.
    pub fn start_afresh(&self) {
        self.desk().start_afresh();
        self.0.bell.notify_one();
    }

    /// Ids of delivered alerts, to be taken out of the outbox in status. Told until a post without them.
    #[must_use]
    pub fn delivered(&self, uid: &str) -> Vec<String> {
        self.desk().delivered(uid)
    }

    /// Ids of alerts that were given up, to be taken out of the outbox and said in an event. Told until a post without them.
    #[must_use]
    pub fn abandoned(&self, uid: &str) -> Vec<String> {
        self.desk().abandoned(uid)
    }

    /// What currently fails for a Canary: a sentence for each provider that has alerts waiting.
    #[must_use]
    pub fn trouble(&self, uid: &str) -> Vec<Trouble> {
        self.desk().trouble(uid)
    }

    /// For metrics.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.desk().tally()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task.
struct Round<N> {
    courier: Courier,
    directory: Arc<dyn Directory>,
    wire: Arc<dyn Wire>,
    pace: Pace,
    news: N,
}

impl<N: Fn(&Origin)> Round<N> {
    async fn run(self) {
        let mut attempts = JoinSet::new();
        let mut jobs: HashMap<Id, Job> = HashMap::new();
        let mut fresh_starts = 0;
        loop {
            let (due, wake) = {
                let mut desk = self.courier.desk();
                if desk.fresh_starts() != fresh_starts {
                    fresh_starts = desk.fresh_starts();
                    // Dropped, its tasks end.
                    attempts = JoinSet::new();
                    jobs.clear();
                }
                (desk.take(Instant::now()), desk.wake())
            };
            for job in due {
                let attempt = attempt(
                    self.directory.clone(),
                    self.wire.clone(),
                    self.pace,
                    job.clone(),
                );
                jobs.insert(attempts.spawn(attempt).id(), job);
            }
            let next = async {
                match wake {
                    Some(wake) => sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.courier.0.bell.notified() => {}
                () = next => {}
                Some(ended) = attempts.join_next_with_id() => {
                    let (id, outcome) = match ended {
                        Ok((id, outcome)) => (id, outcome),
                        // A panic, whose message went to standard error; the lane must go on.
                        Err(error) => (error.id(), Err(failure("the attempt broke down inside the operator".to_owned()))),
                    };
                    if let Some(job) = jobs.remove(&id) {
                        self.settle(&job, outcome);
                    }
                }
            }
        }
    }

    fn settle(&self, job: &Job, outcome: Result<(), Failure>) {
        let Job { origin, alert } = job;
        let outcome = outcome.map_err(|failure| Failure {
            sentence: format!(
                "alerts to {} are not delivered: {}",
                alert.provider, failure.sentence
            ),
            ..failure
        });
        let sentence = outcome.as_ref().err().map(|f| f.sentence.clone());
        let sentence = sentence.as_deref().unwrap_or_default();
        let upshot = self.courier.desk().report(job, outcome, Instant::now());
        let Origin {
            namespace,
            name,
            uid: _,
        } = origin;
        let (id, event) = (alert.id.as_str(), alert.event.name());
        match upshot {
            Upshot::Delivered => {
                tracing::info!(namespace, canary = name, id, event, provider = %alert.provider, "alert delivered");
            }
            Upshot::FailedAgain => {
                tracing::debug!(namespace, canary = name, id, event, "{sentence}");
            }
            Upshot::FailedAnew => {
                tracing::warn!(namespace, canary = name, id, event, "{sentence}");
            }
            Upshot::Abandoned => {
                tracing::error!(
                    namespace,
                    canary = name,
                    id,
                    event,
                    "alert given up; {sentence}"
                );
            }
        }
        match upshot {
            Upshot::FailedAgain => {}
            Upshot::Delivered | Upshot::FailedAnew | Upshot::Abandoned => (self.news)(origin),
        }
    }
}

async fn attempt(
    directory: Arc<dyn Directory>,
    wire: Arc<dyn Wire>,
    pace: Pace,
    job: Job,
) -> Result<(), Failure> {
    let attempt = async {
        let letter = letter(&*directory, &*wire, &job.origin, &job.alert).await?;
        let host = letter.target.host();
        let answer = wire.post(letter).await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
                Err(Failure {
                    sentence: in_words(&host, status),
                    retry_after: answer.retry_after,
                })
            }
            status => Err(failure(in_words(&host, status))),
        }
    };
    match timeout(pace.attempt, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(failure(format!(
            "the attempt did not end within {} s",
            pace.attempt.as_secs_f64()
        ))),
    }
}

fn in_words(host: &str, status: StatusCode) -> String {
    let answered = format!("{host} answered {status}");
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => answered,
        _ if status.is_redirection() => format!(
            "{answered}, and redirects are not followed; put the final address into the Secret"
        ),
        _ if status.is_client_error() => format!(
            "{answered}, so the request will not do as it is; look at the provider's URL and headers (it is tried again meanwhile)"
        ),
        _ => answered,
    }
}

fn failure(sentence: String) -> Failure {
    Failure {
        sentence,
        retry_after: None,
    }
}

impl From<LetterError> for Failure {
    fn from(error: LetterError) -> Self {
        failure(error.to_string())
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        failure(error.to_string())
    }
}
