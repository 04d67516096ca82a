//! At rest: what serves, whether it is what the spec names, and whether a release may begin.

use super::bounds::too_large;
use super::checks::base;
use super::decide::Turn;
use super::facts::{Acceptance, BackendFact, Obstacle, RouteState, Sight};
use super::plan::Plan;
use crate::api::{AlertEvent, Backend, PlanSpec, Release, RouteRecord, Stable, Stage, StepStatus};

impl Turn<'_> {
    pub fn rest(&mut self) {
        if self.facts.deleting {
            return;
        }
        let Some(target) = self.target() else { return };
        if !self.know_stable(&target) {
            return;
        }
        let Some(stable) = self.status.stable.clone() else {
            return;
        };
        let revision = target.revision();
        if revision == stable.revision {
            self.status.refused = None;
            self.obstacle = self
                .facts
                .obstacle
                .clone()
                .or_else(|| self.route_obstacle(false));
            return;
        }
        if self
            .status
            .refused
            .as_ref()
            .is_some_and(|refused| *refused != revision)
        {
            self.status.refused = None;
        }
        self.obstacle = self
            .facts
            .obstacle
            .clone()
            .or_else(|| self.route_obstacle(true))
            .or_else(|| self.target_obstacle(&target));
        let waits = self.status.refused.is_some() || self.facts.spec.paused;
        if self.obstacle.is_none() && !waits {
            self.begin_release(target);
        }
    }

    /// Finds out what serves. False when that is not plain, or was only just learned.
    fn know_stable(&mut self, target: &Backend) -> bool {
        let held = self.facts.routes.iter().all(|route| match &route.state {
            RouteState::Missing => true,
            RouteState::Found { holds_stable, .. } => *holds_stable,
        });
        let seen = match &self.facts.sight {
            Sight::Serves(backend) => backend.clone(),
            Sight::Unclear(obstacle) => {
                if self.status.stable.is_none() || !held {
                    self.obstacle = self
                        .facts
                        .obstacle
                        .clone()
                        .or_else(|| self.missing_route())
                        .or_else(|| Some(obstacle.clone()));
                    return false;
                }
                return true;
            }
        };
        let found = |backend: Backend| Stable {
            revision: backend.revision(),
            backend,
            contested_by: None,
        };
        let Some(stable) = self.status.stable.as_mut() else {
            self.status.stable = Some(found(seen));
            return true;
        };
        if held {
            stable.contested_by = None;
            return true;
        }
        if seen == *target || *target != stable.backend {
            // The route was changed by its owner's own hand, to what the spec names, or before a new release.
            self.status.stable = Some(found(seen));
            return false;
        }
        if stable.contested_by.as_ref() != Some(&seen) {
            let message = format!(
                "the route serves {seen} again by someone else's hand; it is kept so. Say {}={} to release {target} once more",
                crate::api::Verb::Retry.annotation(),
                stable.revision,
            );
            stable.contested_by = Some(seen);
            self.tell(AlertEvent::RouteContested, message);
        }
        true
    }

    fn missing_route(&self) -> Option<Obstacle> {
        self.facts
            .routes
            .iter()
            .find_map(|route| match &route.state {
                RouteState::Missing => Some(Obstacle {
                    reason: "RouteNotFound",
                    message: format!(
                        "{} is not in namespace {}; create it or correct spec.routes",
                        route.title, self.facts.namespace
                    ),
                }),
                RouteState::Found { .. } => None,
            })
    }

    fn route_obstacle(&self, to_be_split: bool) -> Option<Obstacle> {
        self.missing_route().or_else(|| {
            self.facts
                .routes
                .iter()
                .find_map(|route| match &route.state {
                    RouteState::Found {
                        survey: Err(obstacle),
                        ..
                    } if to_be_split => Some(obstacle.clone()),
                    RouteState::Found {
                        acceptance: Acceptance::Refused(why),
                        ..
                    } => Some(Obstacle {
                        reason: "RouteNotAccepted",
                        message: format!("{}: {why}", route.title),
                    }),
                    RouteState::Found { .. } | RouteState::Missing => None,
                })
        })
    }

    fn target_obstacle(&self, target: &Backend) -> Option<Obstacle> {
        let namespace = target.namespace.as_deref().unwrap_or(self.facts.namespace);
        let (reason, message) = match self.facts.candidate {
            BackendFact::Ready => return None,
            BackendFact::Missing => (
                "BackendNotFound",
                format!(
                    "spec.target.backend: {} {} is not in namespace {namespace}",
                    target.kind, target.name
                ),
            ),
            BackendFact::NoPort => (
                "PortNotFound",
                format!(
                    "spec.target.backend.port: {} {} has no port {}",
                    target.kind, target.name, target.port
                ),
            ),
            BackendFact::NoEndpoints => (
                "BackendNotReady",
                format!(
                    "waiting for {} {} to have a ready endpoint before any traffic goes to it",
                    target.kind, target.name
                ),
            ),
        };
        Some(Obstacle { reason, message })
    }

    fn begin_release(&mut self, candidate: Backend) {
        let spec = PlanSpec::of(self.facts.spec);
        let plan = match Plan::of(&spec) {
            Ok(plan) => plan,
            Err(err) => {
                self.obstacle = Some(Obstacle {
                    reason: "InvalidSpec",
                    message: err.to_string(),
                });
                return;
            }
        };
        let records: Vec<RouteRecord> = self
            .facts
            .routes
            .iter()
            .filter_map(|route| match &route.state {
                RouteState::Found {
                    survey: Ok(record), ..
                } => Some(record.clone()),
                RouteState::Found { .. } | RouteState::Missing => None,
            })
            .collect();
        if let Some(obstacle) = too_large(&spec, &records) {
            self.obstacle = Some(obstacle);
            return;
        }
        let revision = candidate.revision();
        let from = self
            .status
            .stable
            .as_ref()
            .map(|s| s.backend.to_string())
            .unwrap_or_default();
        let first = plan
            .steps
            .first()
            .map(|step| super::words::split(step, &revision))
            .unwrap_or_default();
        let to = candidate.to_string();
        self.begin(
            Release {
                revision,
                candidate,
                started_at: self.now,
                ended_at: None,
                stage: Stage::Stepping,
                outcome: None,
                reason: None,
                plan: spec,
                step: StepStatus::entered(0, self.now),
                approved: Vec::new(),
                promote: false,
                counts: None,
                excess_failures: 0,
                checks: Vec::new(),
                counters: base(&self.facts.answers),
                timeline: Vec::new(),
            },
            records,
        );
        self.wait = Some(super::steps::Wait::Route("the routes to be written".into()));
        let count = plan.steps.len();
        self.tell(
            AlertEvent::Started,
            format!("release from {from} to {to} begins; step 1 of {count}: {first}"),
        );
        self.mark_point();
    }
}
