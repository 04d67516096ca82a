//! When to take, keep and leave the lease. Pure: the time is an argument.
//!
//! Two machines' clocks are never compared. A replica measures on its own clock how long the record
//! has stood unchanged before its eyes, as client-go does, and a leader counts its term from before
//! it *sent* the renewal. So the leader's term is over before anyone's patience is:
//!
//! ```text
//! leader      sent ---- written ------------- term ends (sent + deadline)
//! other                 written -- seen ----------------------- takes it (seen + duration)
//! ```

use std::time::Duration;

/// A moment on this machine's own clock, which never goes back: the time since some fixed moment.
pub type Moment = Duration;

/// The spans of an election, all of them parts of one: how long the lease lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a record must stand unchanged before others may take the lease.
    pub duration: Duration,
    /// How long after the last renewal a leader still writes: two thirds of it, so that clocks
    /// may run apart by half and still nobody leads beside it.
    pub deadline: Duration,
    /// How often a leader renews: a fifth.
    pub renew: Duration,
    /// Pause after a failure: a tenth.
    pub retry: Duration,
    /// How long one request may take: a fifth, so that a leader has three tries.
    pub patience: Duration,
}

impl Timing {
    /// The shortest lease: below it a busy API server costs the leadership.
    pub const SHORTEST: Duration = Duration::from_secs(3);

    #[must_use]
    pub fn lasting(duration: Duration) -> Self {
        Self {
            duration,
            deadline: duration * 2 / 3,
            renew: duration / 5,
            retry: duration / 10,
            patience: duration / 5,
        }
    }
}

/// What the Lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its resource version.
    pub version: String,
    /// None when it was released, or never held.
    pub holder: Option<String>,
    /// What the holder has promised: others wait for so long.
    pub duration: Option<Duration>,
}

/// What stands on the API server, as far as this replica knows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sight {
    /// It must be looked at. `known` says whether there ever was one.
    Unknown { known: bool },
    /// There is no Lease. `since` says when it was seen to have gone, if there was one.
    Absent { since: Option<Moment> },
    /// The record, and when this version of it was first seen.
    Present { record: Record, since: Moment },
}

/// Everything that a replica has observed of the lease.
#[derive(Debug, Clone)]
pub struct Observed {
    identity: String,
    timing: Timing,
    sight: Sight,
    term: Option<Term>,
    /// No reads before.
    reads_rest: Moment,
    /// No writes before.
    writes_rest: Moment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    renewed: Moment,
    until: Moment,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read the Lease.
    Look,
    /// Write our name, on the condition that the Lease is as it was seen.
    Acquire,
    /// Write it again, on the same condition.
    Renew,
    /// Nothing to do before this moment, unless the Lease changes.
    Wait(Moment),
    /// The term is over: write nothing more.
    StepDown,
}

/// What a replica that has observed this does.
#[must_use]
pub fn decide(observed: &Observed, now: Moment) -> Action {
    let Observed {
        identity,
        timing,
        sight,
        term,
        reads_rest,
        writes_rest,
    } = observed;
    let unless_before = |at: Moment, action| if now < at { Action::Wait(at) } else { action };
    let look = unless_before(*reads_rest, Action::Look);
    let write = |at: Moment, action| unless_before(at.max(*writes_rest), action);
    let ours = |record: &Record| record.holder.as_ref() == Some(identity);
    if let Some(Term { renewed, until }) = term {
        let action = match sight {
            _ if now >= *until => Action::StepDown,
            Sight::Unknown { .. } => look,
            // Someone has deleted it. Those who saw that wait; we put it back.
            Sight::Absent { .. } => write(now, Action::Renew),
            Sight::Present { record, .. } if ours(record) => {
                write(*renewed + timing.renew, Action::Renew)
            }
            // Taken, or cleared by hand, and then others may take it at once.
            Sight::Present { .. } => Action::StepDown,
        };
        return match action {
            Action::Wait(at) => Action::Wait(at.min(*until)),
            action => action,
        };
    }
    match sight {
        Sight::Unknown { .. } => look,
        Sight::Absent { since: None } => write(now, Action::Acquire),
        // Its leader may not know yet.
        Sight::Absent { since: Some(since) } => write(*since + timing.duration, Action::Acquire),
        Sight::Present { record, since } => match &record.holder {
            Some(holder) if holder != identity => {
                let promised = record.duration.unwrap_or(timing.duration);
                write(*since + promised, Action::Acquire)
            }
            // Ours, from a write whose answer was lost or a term that ran out: nobody else can have it.
            Some(_) | None => write(now, Action::Acquire),
        },
    }
}

impl Observed {
    #[must_use]
    pub fn nothing(identity: impl Into<String>, timing: Timing) -> Self {
        Self {
            identity: identity.into(),
            timing,
            sight: Sight::Unknown { known: false },
            term: None,
            reads_rest: Moment::ZERO,
            writes_rest: Moment::ZERO,
        }
    }

    /// The Lease was read, or a watch told of it. `now` is a moment after that.
    pub fn see(&mut self, record: Option<Record>, now: Moment) {
        self.sight = match (record, &self.sight) {
            (Some(record), Sight::Present { record: old, since }) if record == *old => {
                Sight::Present {
                    record,
                    since: *since,
                }
            }
            (Some(record), _) => Sight::Present { record, since: now },
            (None, Sight::Present { .. }) => Sight::Absent { since: Some(now) },
            (None, Sight::Absent { since }) => Sight::Absent { since: *since },
            (None, Sight::Unknown { known }) => Sight::Absent {
                since: known.then_some(now),
            },
        };
    }

    /// Our write has succeeded and left this record. `sent` is a moment before it was sent.
    pub fn wrote(&mut self, record: Record, sent: Moment) {
        self.sight = Sight::Present {
            record,
            since: sent,
        };
        self.term = Some(Term {
            renewed: sent,
            until: sent + self.timing.deadline,
        });
    }

    /// A request has failed, or its answer did not come: pause until `rest`.
    pub fn failed(&mut self, rest: Moment) {
        self.reads_rest = rest;
        self.writes_rest = rest;
    }

    /// The Lease is not what was seen: look again, and write nothing before `rest`.
    pub fn refuted(&mut self, rest: Moment) {
        let known = match self.sight {
            Sight::Unknown { known } => known,
            Sight::Absent { since } => since.is_some(),
            Sight::Present { .. } => true,
        };
        self.sight = Sight::Unknown { known };
        self.writes_rest = rest;
    }

    /// The term is over, or given up.
    pub fn step_down(&mut self) {
        self.term = None;
    }

    /// Until when this replica may write.
    #[must_use]
    pub fn leads_until(&self) -> Option<Moment> {
        self.term.map(|term| term.until)
    }

    /// Whom the record names.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        match &self.sight {
            Sight::Present { record, .. } => record.holder.as_deref(),
            Sight::Absent { .. } | Sight::Unknown { .. } => None,
        }
    }
}
