//! A clock that was put back, or another machine's that is behind: what has happened cannot be of the future.

use super::decide::Turn;
use crate::api::Time;

impl Turn<'_> {
    /// Takes every moment of the release that is still to come for now. Else nothing would be measured, and
    /// no step's clock would run, until the time that was there before has come again.
    pub fn nothing_is_of_the_future(&mut self) {
        let (now, settle) = (self.now, self.settle());
        let Some(release) = self.status.release.as_mut() else {
            return;
        };
        let step = &mut release.step;
        let since = [
            &mut step.accepted_at,
            &mut step.paused_since,
            &mut step.blind_since,
        ];
        let moments = std::iter::once(&mut step.entered_at)
            .chain(since.into_iter().flatten())
            .chain(release.checks.iter_mut().map(|check| &mut check.at))
            .chain(release.counters.iter_mut().map(|counters| &mut counters.at))
            .chain(release.timeline.iter_mut().map(|point| &mut point.at));
        moments.for_each(|moment: &mut Time| *moment = (*moment).min(now));
        // The step's clock begins when the plane has settled, so it may be of the future, but by no more.
        if let Some(since) = step.clock_since.as_mut() {
            *since = (*since).min(now + settle);
        }
    }
}
