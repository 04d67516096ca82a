//! The gate before every write: whether this replica leads, now.

use super::decide::Moment;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;

/// This machine's clock for terms. It goes on while the process is stopped and, on Linux, while the machine sleeps.
#[must_use]
pub fn moment() -> Moment {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let time = clock_gettime(CLOCK);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The term is over: what was about to be written must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this replica does not lead")]
pub struct NotLeading;

/// Whether this replica leads. A cheap handle; the election holds the other end.
#[derive(Debug, Clone)]
pub struct Leadership(watch::Receiver<Standing>);

/// The election's end of a [`Leadership`].
#[derive(Debug)]
pub struct Seat(watch::Sender<Standing>);

/// One term of leadership. Whoever holds it must ask before each write.
#[derive(Debug, Clone)]
pub struct Term {
    leadership: Leadership,
    number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    /// Counts the terms of this process.
    number: u64,
    until: Until,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// It does not lead.
    Over,
    Moment(Moment),
    /// There is no election.
    Forever,
}

impl Until {
    fn lasts(self) -> bool {
        match self {
            Self::Over => false,
            Self::Moment(until) => moment() < until,
            Self::Forever => true,
        }
    }
}

impl Leadership {
    /// Of a replica that is alone.
    #[must_use]
    pub fn always() -> Self {
        let standing = Standing {
            number: 1,
            until: Until::Forever,
        };
        Self(watch::channel(standing).1)
    }

    /// Of a replica that stands for election, and does not lead yet.
    #[must_use]
    pub fn contested() -> (Seat, Self) {
        let standing = Standing {
            number: 0,
            until: Until::Over,
        };
        let (sender, receiver) = watch::channel(standing);
        (Seat(sender), Self(receiver))
    }

    /// The present term, if this replica leads.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        let Standing { number, until } = *self.0.borrow();
        until.lasts().then(|| Term {
            leadership: self.clone(),
            number,
        })
    }

    #[must_use]
    pub fn is_contested(&self) -> bool {
        self.0.borrow().until != Until::Forever
    }

    /// Returns when this replica leads.
    pub async fn begun(&self) -> Term {
        let mut changes = self.0.clone();
        loop {
            changes.mark_unchanged();
            if let Some(term) = self.term() {
                return term;
            }
            if changes.changed().await.is_err() {
                // The election has ended with the process.
                return std::future::pending().await;
            }
        }
    }
}

impl Seat {
    /// Begins a term, or makes the present one longer.
    pub fn lead(&self, until: Moment) {
        self.0.send_modify(|standing| {
            // A term that ran out is not revived: what it began was given up.
            if !standing.until.lasts() {
                standing.number += 1;
            }
            standing.until = Until::Moment(until);
        });
    }

    pub fn step_down(&self) {
        self.0.send_modify(|standing| standing.until = Until::Over);
    }
}

impl Term {
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// To be asked right before each write.
    ///
    /// # Errors
    /// When the term is over.
    pub fn check(&self) -> Result<(), NotLeading> {
        let Standing { number, until } = *self.leadership.0.borrow();
        if number == self.number && until.lasts() {
            Ok(())
        } else {
            Err(NotLeading)
        }
    }

    /// Does something that only a leader may do, and gives it up where the term ends first.
    ///
    /// # Errors
    /// When the term is over, or ends before it is done. It may have happened all the same.
    pub async fn guard<T>(&self, deed: impl Future<Output = T>) -> Result<T, NotLeading> {
        let mut deed = std::pin::pin!(deed);
        let mut over = std::pin::pin!(self.over());
        // Asked at each step of the deed: the process may have been stopped between any two.
        std::future::poll_fn(|context| {
            if self.check().is_err() || over.as_mut().poll(context).is_ready() {
                return std::task::Poll::Ready(Err(NotLeading));
            }
            deed.as_mut().poll(context).map(Ok)
        })
        .await
    }

    /// Returns when the term is over.
    pub async fn over(&self) {
        let mut changes = self.leadership.0.clone();
        loop {
            changes.mark_unchanged();
            if self.check().is_err() {
                return;
            }
            let until = self.leadership.0.borrow().until;
            let left = match until {
                Until::Over => return,
                Until::Moment(until) => until.saturating_sub(moment()),
                Until::Forever => return std::future::pending().await,
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    // The election is gone, and nobody makes the term longer.
                    tokio::time::sleep(left).await;
                },
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon(millis: u64) -> Moment {
        moment() + Duration::from_millis(millis)
    }

    #[tokio::test]
    async fn a_term_ends_by_itself_and_is_not_revived() {
        let (seat, leadership) = Leadership::contested();
        assert!(leadership.term().is_none());
        seat.lead(soon(30));
        let term = leadership.term().unwrap();
        assert_eq!(term.check(), Ok(()));
        assert_eq!(
            term.guard(std::future::pending::<()>()).await,
            Err(NotLeading)
        );
        assert!(leadership.term().is_none());
        seat.lead(soon(10_000));
        assert_eq!(term.check(), Err(NotLeading));
        assert_eq!(leadership.begun().await.number(), 2);
    }

    #[tokio::test]
    async fn a_term_lasts_while_it_is_renewed() {
        let (seat, leadership) = Leadership::contested();
        seat.lead(soon(40));
        let term = leadership.term().unwrap();
        let renewing = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                seat.lead(soon(40));
            }
            42
        };
        assert_eq!(term.guard(renewing).await, Ok(42));
        seat.step_down();
        term.over().await;
        assert_eq!(term.guard(async {}).await, Err(NotLeading));
    }

    #[tokio::test]
    async fn a_replica_alone_leads_always() {
        let term = Leadership::always().begun().await;
        assert_eq!(term.guard(async { 1 }).await, Ok(1));
        let over = tokio::time::timeout(Duration::from_millis(20), term.over());
        assert!(over.await.is_err());
    }
}
