//! Telling people: an event of the Canary, and an alert for each provider that asked for it.

use super::bounds::OUTBOX;
use super::decide::Turn;
use super::facts::Note;
use crate::api::{Alert, AlertCheck, AlertEvent, Verdict};

impl Turn<'_> {
    pub fn tell(&mut self, event: AlertEvent, message: String) {
        let step = self.release().map_or(0, |release| release.step.index + 1);
        let began = self
            .release()
            .map_or(0, |release| release.started_at.timestamp_millis());
        let revision = self.release().map(|release| release.revision.clone());
        let revision = revision
            .or_else(|| self.status.stable.as_ref().map(|s| s.revision.clone()))
            .unwrap_or_default();
        let check = self.check_to_tell();
        // What can come again in one step is another alert each time.
        let again = match event {
            AlertEvent::DataLost | AlertEvent::RouteContested => {
                format!(".{}", self.now.timestamp_millis())
            }
            AlertEvent::Started
            | AlertEvent::StepReached
            | AlertEvent::WaitingForApproval
            | AlertEvent::Stalled
            | AlertEvent::RolledBack
            | AlertEvent::Promoted
            | AlertEvent::Aborted
            | AlertEvent::Superseded => String::new(),
        };
        for alert in self
            .facts
            .spec
            .alerts
            .iter()
            .filter(|alert| alert.events.contains(&event))
        {
            let provider = &alert.provider_ref.name;
            let id = format!(
                "{revision}.{began}.{step}.{}.{provider}{again}",
                event.name()
            );
            if self.status.outbox.iter().any(|waiting| waiting.id == id) {
                continue;
            }
            self.status.outbox.push(Alert {
                id,
                provider: provider.clone(),
                event,
                at: self.now,
                revision: revision.clone(),
                message: message.clone(),
                check: check.clone(),
            });
        }
        if self.status.outbox.len() > OUTBOX {
            let droppable = |alert: &Alert| {
                matches!(alert.event, AlertEvent::StepReached | AlertEvent::Started)
            };
            let oldest = self.status.outbox.iter().position(droppable).unwrap_or(0);
            let dropped = self.status.outbox.remove(oldest);
            let message = format!(
                "an alert of {} for {} was dropped: its outbox is full",
                dropped.event.name(),
                dropped.provider
            );
            self.events.push(Note {
                reason: "AlertDropped",
                warning: true,
                message,
            });
        }
        let message = if revision.is_empty() {
            message
        } else {
            format!("{revision}: {message}")
        };
        self.events.push(Note::of(event, message));
    }

    /// The check that an alert is about: the one that condemns, or else the first that cannot tell.
    fn check_to_tell(&self) -> Option<AlertCheck> {
        let checks = &self.release()?.checks;
        let of = |verdict: Verdict| checks.iter().find(move |c| c.verdict == verdict);
        let check = of(Verdict::Harm)
            .or_else(|| of(Verdict::Error))
            .or_else(|| of(Verdict::NoData))
            .or_else(|| of(Verdict::CannotTell))
            .or_else(|| checks.first())?;
        Some(AlertCheck {
            name: check.name.clone(),
            value: check.value.clone(),
            limit: check.limit.clone(),
            counts: check.counts,
        })
    }
}
