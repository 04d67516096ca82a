//! What people say by annotations. Each names the revision that it is about, so that a stale one does nothing.

use super::bounds::{noted, too_large};
use super::decide::{Turn, under_way, wanted};
use super::facts::Note;
use super::plan::Plan;
use crate::api::{CanaryStatus, Command, Outcome, PlanSpec, Stable, Stage, StepStatus, Verb};

impl Turn<'_> {
    /// Obeys each annotation once and notes it as obeyed; it is removed after the status is written.
    pub fn obey(&mut self) {
        let facts = self.facts;
        for verb in Verb::ALL {
            let Some(command) = facts.commands.iter().find(|c| c.verb == verb) else {
                continue;
            };
            if self.status.obeyed.contains(&noted(command)) {
                continue;
            }
            let answer = match verb {
                Verb::Abort => self.obey_abort(&command.value),
                Verb::Retry => self.obey_retry(&command.value),
                Verb::Replan => self.obey_replan(&command.value),
                Verb::Approve => self.obey_approve(&command.value),
                Verb::Promote => self.obey_promote(&command.value),
            };
            self.status.obeyed.push(noted(command));
            self.events.push(match answer {
                Ok(what) => Note {
                    reason: "CommandObeyed",
                    warning: false,
                    message: said(command, &what),
                },
                Err(why) => Note {
                    reason: "CommandIgnored",
                    warning: true,
                    message: said(command, &why),
                },
            });
        }
    }

    fn obey_abort(&mut self, revision: &str) -> Result<String, String> {
        let stage = self.release_named(revision)?;
        if stage == Stage::Restoring {
            return Err("its traffic is being taken back already".into());
        }
        self.restore(Outcome::Aborted, "stopped by hand".into());
        Ok("the release is stopped".into())
    }

    fn obey_retry(&mut self, revision: &str) -> Result<String, String> {
        if self.status.refused.as_deref() == Some(revision) {
            self.status.refused = None;
            return Ok("the revision is tried again".into());
        }
        let contested = self
            .status
            .stable
            .as_ref()
            .filter(|s| s.revision == revision);
        if let Some(backend) = contested.and_then(|s| s.contested_by.clone()) {
            // The route serves something else by someone's hand; releasing from there is what was asked for.
            self.status.stable = Some(Stable {
                revision: backend.revision(),
                backend,
                contested_by: None,
            });
            return Ok("the revision is released again".into());
        }
        match &self.status.refused {
            Some(refused) => Err(format!("the revision that was taken back is {refused}")),
            None => Err("no revision was taken back".into()),
        }
    }

    fn obey_replan(&mut self, revision: &str) -> Result<String, String> {
        self.release_named(revision)?;
        let spec = PlanSpec::of(self.facts.spec);
        let plan = Plan::of(&spec).map_err(|err| err.to_string())?;
        let last = u32::try_from(plan.steps.len().saturating_sub(1)).unwrap_or(u32::MAX);
        // Rules for header testers are known by the headers of every step that may come.
        let headers = plan.steps.iter().flat_map(|step| &step.headers);
        let mut routes = self.status.routes.clone();
        for header in headers {
            for route in &mut routes {
                if !route.headers.contains(header) {
                    route.headers.push(header.clone());
                }
            }
        }
        if let Some(obstacle) = too_large(&spec, &routes) {
            return Err(obstacle.message);
        }
        self.status.routes = routes;
        let now = self.now;
        let split = |status: &CanaryStatus| wanted(status).map(|(wanted, ..)| wanted);
        let before = split(&self.status);
        if let Some(release) = self.status.release.as_mut() {
            release.plan = spec;
            release.step.index = release.step.index.min(last);
        }
        // Another split is another step: it must be accepted, and hold, from the beginning.
        if split(&self.status) != before
            && let Some(release) = self.status.release.as_mut()
        {
            release.step = StepStatus::entered(release.step.index, now);
        }
        Ok("the release goes on by the spec as it is now".into())
    }

    fn obey_approve(&mut self, value: &str) -> Result<String, String> {
        let form = || {
            format!(
                "it must be REVISION/STEP, such as {}",
                self.approval_value(1)
            )
        };
        let (revision, step) = value.rsplit_once('/').ok_or_else(form)?;
        let step: u32 = step.parse().map_err(|_| form())?;
        self.release_named(revision)?;
        let count = self.planned().map_or(0, |(plan, _)| plan.steps.len());
        if step == 0 || step as usize > count {
            return Err(format!("the release has steps 1 to {count}"));
        }
        if let Some(release) = self
            .status
            .release
            .as_mut()
            .filter(|r| !r.approved.contains(&step))
        {
            release.approved.push(step);
        }
        Ok(format!("step {step} is approved"))
    }

    fn obey_promote(&mut self, revision: &str) -> Result<String, String> {
        if self.release_named(revision)? != Stage::Stepping {
            return Err("the release is past its steps".into());
        }
        if let Some(release) = self.status.release.as_mut() {
            release.promote = true;
        }
        Ok("the steps that are left are skipped".into())
    }

    fn release_named(&self, revision: &str) -> Result<Stage, String> {
        match self.release().filter(|release| under_way(release)) {
            Some(release) if release.revision == revision => Ok(release.stage),
            Some(release) => Err(format!("the release under way is of {}", release.revision)),
            None => Err("no release is under way".into()),
        }
    }

    /// What a person writes to approve a step.
    pub fn approval_value(&self, step: u32) -> String {
        let revision = self
            .release()
            .map_or("REVISION", |release| release.revision.as_str());
        format!("{revision}/{step}")
    }
}

fn said(command: &Command, what: &str) -> String {
    let value: String = command.value.chars().take(80).collect();
    format!("{}={value}: {what}", command.verb.annotation())
}
