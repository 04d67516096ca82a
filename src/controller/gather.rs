//! The facts that a decision rests on: the only reads.

use super::Context;
use super::lease::Term;
use super::memory::Memory;
use super::stores::route_resource;
use crate::api::{
    Backend, Canary, CanarySpec, CanaryStatus, Command, FINALIZER, PlanSpec, Release, RouteKind,
    RouteRecord, Verb, Wanted,
};
use crate::metrics::{self, Profile};
use crate::release::{
    Acceptance, Answer, BackendFact, Facts, Obstacle, Plan, RouteFact, RouteState, Sight,
    under_way, wanted,
};
use crate::traffic::{self, FirstSight, Frame};
use chrono::TimeDelta;
use kube::ResourceExt;
use serde_json::Value;

/// How long a data plane that we know nothing of may take from accepting to splitting as told.
const UNKNOWN_SETTLE: TimeDelta = TimeDelta::seconds(5);

/// A route that the Canary is about, as it stands now.
pub struct Seen {
    pub title: String,
    pub kind: RouteKind,
    pub name: String,
    /// Names of the rules to manage; all that hold the stable backend where there are none.
    pub rules: Vec<String>,
    pub route: Option<Value>,
    pub profile: Option<&'static Profile>,
}

/// A Canary and the routes that it is about, read once.
pub struct Scene<'a> {
    pub canary: &'a Canary,
    pub name: String,
    pub namespace: String,
    pub status: &'a CanaryStatus,
    pub routes: Vec<Seen>,
    /// In which it was read. No write after its end.
    pub term: &'a Term,
}

impl<'a> Scene<'a> {
    pub fn read(
        context: &Context,
        canary: &'a Canary,
        status: &'a CanaryStatus,
        memory: &Memory,
        term: &'a Term,
    ) -> Self {
        let namespace = canary.namespace().unwrap_or_default();
        let routes = named(&canary.spec, status)
            .into_iter()
            .map(|(kind, name, rules)| {
                let title = format!("{} {name}", route_resource(kind).kind);
                let cached = context.stores.route(kind, &namespace, &name);
                let route = memory.fresher_route(&title, cached);
                let profile = route.as_ref().and_then(|route| profile(context, route));
                Seen {
                    title,
                    kind,
                    name,
                    rules,
                    route,
                    profile,
                }
            })
            .collect();
        Self {
            canary,
            name: canary.name_any(),
            namespace,
            status,
            routes,
            term,
        }
    }

    /// The backend that is being released, or else the one that the spec names.
    pub fn candidate(&self) -> Option<Backend> {
        match self.status.release.as_ref().filter(|r| under_way(r)) {
            Some(release) => Some(release.candidate.clone()),
            None => self
                .canary
                .spec
                .target
                .backend
                .clone()
                .map(|b| b.within(&self.namespace)),
        }
    }

    /// What serves, as far as status or the routes say.
    pub fn stable(&self, sight: &Sight) -> Option<Backend> {
        let known = self.status.stable.as_ref().map(|s| s.backend.clone());
        known.or_else(|| match sight {
            Sight::Serves(backend) => Some(backend.clone()),
            Sight::Unclear(_) => None,
        })
    }

    pub fn facts(
        &'a self,
        context: &Context,
        answers: Vec<Answer>,
        delivered: Vec<String>,
    ) -> Facts<'a> {
        let sight = self.sight();
        let stable = self.stable(&sight);
        let candidate = self.candidate();
        let wanted = wanted(self.status).map(|(wanted, ..)| wanted);
        let pair = stable.as_ref().zip(candidate.as_ref());
        let routes = self.routes.iter().map(|seen| RouteFact {
            title: seen.title.clone(),
            state: self.route_state(context, seen, pair, wanted.as_ref()),
        });
        Facts {
            name: &self.name,
            namespace: &self.namespace,
            generation: self.canary.metadata.generation.unwrap_or(0),
            deleting: self.canary.metadata.deletion_timestamp.is_some(),
            held: self.canary.finalizers().iter().any(|f| f == FINALIZER),
            spec: &self.canary.spec,
            status: self.status,
            commands: commands(self.canary),
            obstacle: self.obstacle(context),
            routes: routes.collect(),
            sight,
            candidate: candidate.map_or(BackendFact::Missing, |backend| {
                backend_fact(context, &backend, &self.namespace)
            }),
            answers,
            delivered,
        }
    }

    pub fn frame(
        &'a self,
        seen: &'a Seen,
        stable: &'a Backend,
        candidate: &'a Backend,
    ) -> Frame<'a> {
        Frame {
            owner: &self.name,
            namespace: &self.namespace,
            rules: &seen.rules,
            stable,
            candidate,
        }
    }

    fn route_state(
        &self,
        context: &Context,
        seen: &Seen,
        pair: Option<(&Backend, &Backend)>,
        wanted: Option<&Wanted>,
    ) -> RouteState {
        let Some(route) = &seen.route else {
            return RouteState::Missing;
        };
        let uid = route["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let record = self
            .status
            .routes
            .iter()
            .find(|r| r.kind == seen.kind && r.name == seen.name && r.uid == uid);
        let planned = match (record, pair, wanted) {
            (Some(record), Some((stable, candidate)), Some(wanted)) => Some(traffic::plan(
                route,
                &self.frame(seen, stable, candidate),
                record,
                wanted,
            )),
            _ => None,
        };
        let carries = matches!(planned, Some(Ok(None)));
        let survey = match (planned, record, pair) {
            (Some(Err(err)), ..) => Err(refused(&err)),
            (_, Some(record), _) => Ok(record.clone()),
            (_, None, Some((stable, candidate))) => self.survey(seen, route, stable, candidate),
            (_, None, None) => Err(Obstacle {
                reason: "StableUnknown",
                message: "it is not known yet what serves".into(),
            }),
        };
        let holds_stable = pair.is_some_and(|(stable, _)| {
            traffic::holds(route, &seen.rules, &self.namespace).contains(stable)
        });
        RouteState::Found {
            uid,
            survey,
            carries,
            acceptance: match traffic::acceptance(route) {
                traffic::Acceptance::Accepted => Acceptance::Accepted,
                traffic::Acceptance::Pending { parent, message } => {
                    Acceptance::Pending(format!("{parent}: {message}"))
                }
                traffic::Acceptance::Refused {
                    parent,
                    condition,
                    reason,
                    message,
                } => Acceptance::Refused(format!("{parent} says {condition}, {reason}: {message}")),
            },
            settle: context
                .settle
                .or(seen.profile.map(|p| p.settle))
                .unwrap_or(UNKNOWN_SETTLE),
            holds_stable,
        }
    }

    fn survey(
        &self,
        seen: &Seen,
        route: &Value,
        stable: &Backend,
        candidate: &Backend,
    ) -> Result<RouteRecord, Obstacle> {
        let frame = self.frame(seen, stable, candidate);
        let spec = match self.status.release.as_ref().filter(|r| under_way(r)) {
            Some(Release { plan, .. }) => plan.clone(),
            None => PlanSpec::of(&self.canary.spec),
        };
        let splits = Plan::of(&spec)
            .map(|plan| plan.splits())
            .unwrap_or_default();
        traffic::survey(route, &frame, &splits).map_err(|err| refused(&err))
    }

    /// Places of the rules of a route whose requests do not count: all but those that are split, and,
    /// where `testers` count, those that were added for them.
    pub fn rules_to_skip(
        &self,
        seen: &Seen,
        route: &Value,
        (stable, candidate): (&Backend, &Backend),
        testers: bool,
    ) -> Vec<usize> {
        let record = self
            .status
            .routes
            .iter()
            .find(|r| r.kind == seen.kind && r.name == seen.name);
        let Some((record, (wanted, ..))) = record.zip(wanted(self.status)) else {
            return Vec::new();
        };
        let frame = self.frame(seen, stable, candidate);
        let (split, added) = traffic::split_and_added_rules(route, &frame, record, &wanted);
        let rules = route["spec"]["rules"].as_array().map_or(0, Vec::len);
        (0..rules)
            .filter(|at| !(split.contains(at) || testers && added.contains(at)))
            .collect()
    }

    /// What serves by the routes alone.
    pub fn first_sight(&self) -> Option<Backend> {
        match self.sight() {
            Sight::Serves(backend) => Some(backend),
            Sight::Unclear(_) => None,
        }
    }

    fn sight(&self) -> Sight {
        let Some(target) = self.canary.spec.target.backend.clone() else {
            return Sight::Unclear(Obstacle {
                reason: "NoTarget",
                message: "spec.target.backend is missing".into(),
            });
        };
        let target = target.within(&self.namespace);
        let routes: Vec<_> = self
            .routes
            .iter()
            .filter_map(|s| Some((s.route.as_ref()?, s.rules.as_slice())))
            .collect();
        let list = |backends: &[Backend]| {
            backends
                .iter()
                .map(Backend::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let unclear = |reason, message| Sight::Unclear(Obstacle { reason, message });
        match traffic::first_sight(&routes, &target, &self.namespace) {
            FirstSight::Serves(backend) => Sight::Serves(backend),
            FirstSight::Ambiguous { holds } => unclear(
                "StableAmbiguous",
                format!(
                    "it is not plain what serves: the routes hold {}. Set spec.target.backend to the one that does, or name the rules to manage in spec.routes[].rules",
                    list(&holds)
                ),
            ),
            FirstSight::CandidateHasWeight {
                route,
                rule,
                stable,
                weight,
            } => unclear(
                "CandidateHasWeight",
                format!(
                    "{target} has weight {weight} beside {stable} already, in {rule} of {route}; give it weight 0 there"
                ),
            ),
            FirstSight::Empty => {
                unclear("NoBackends", "no rule of the routes has a backend".into())
            }
        }
    }

    /// What keeps the spec from being carried out whatever the routes are.
    fn obstacle(&self, context: &Context) -> Option<Obstacle> {
        let spec = PlanSpec::of(&self.canary.spec);
        let plan = match Plan::of(&spec) {
            Ok(plan) => plan,
            Err(err) => {
                return Some(Obstacle {
                    reason: "InvalidSpec",
                    message: err.to_string(),
                });
            }
        };
        for metric in &plan.metrics {
            if let Err(err) = metrics::check(&metric.query) {
                let message = format!("spec.analysis.metrics[{}].query: {err}", metric.name);
                return Some(Obstacle {
                    reason: "InvalidQuery",
                    message,
                });
            }
        }
        let asks = plan.error_rate.is_some() || !plan.metrics.is_empty();
        if asks && context.source.is_none() {
            let message = "the analysis needs Prometheus, and the operator was started without --prometheus-url".into();
            return Some(Obstacle {
                reason: "NoPrometheus",
                message,
            });
        }
        let blind = self
            .routes
            .iter()
            .find(|seen| seen.route.is_some() && seen.profile.is_none());
        if let Some(seen) = blind.filter(|_| plan.error_rate.is_some()) {
            let known = controllers(context, seen.route.as_ref()).join(", ");
            let message = if known.is_empty() {
                format!(
                    "no controller has taken up {} yet: neither it nor its Gateway's class names one",
                    seen.title
                )
            } else {
                format!(
                    "analysis.errorRate has no built-in query for {known}, which serves {}; write analysis.metrics with a query of your own",
                    seen.title
                )
            };
            return Some(Obstacle {
                reason: "NoProfile",
                message,
            });
        }
        None
    }
}

fn refused(error: &traffic::TrafficError) -> Obstacle {
    Obstacle {
        reason: error.reason(),
        message: error.to_string(),
    }
}

/// The routes to look at: those that carry a release, or else those that the spec names.
fn named(spec: &CanarySpec, status: &CanaryStatus) -> Vec<(RouteKind, String, Vec<String>)> {
    let rules = |kind, name: &str| {
        let route = spec
            .routes
            .iter()
            .find(|r| r.kind == kind && r.name == name);
        route.map(|r| r.rules.clone()).unwrap_or_default()
    };
    if status.release.as_ref().is_some_and(under_way) {
        let records = status.routes.iter();
        return records
            .map(|r| (r.kind, r.name.clone(), rules(r.kind, &r.name)))
            .collect();
    }
    spec.routes
        .iter()
        .map(|r| (r.kind, r.name.clone(), r.rules.clone()))
        .collect()
}

/// The controllers of a route: of its Gateways' classes, or else those that its status names.
fn controllers(context: &Context, route: Option<&Value>) -> Vec<String> {
    let Some(route) = route else {
        return Vec::new();
    };
    let parents = traffic::parents(route);
    let mut found: Vec<String> = parents
        .iter()
        .filter_map(|parent| {
            let (namespace, name) = parent.gateway()?;
            context.stores.controller_of(namespace, name)
        })
        .collect();
    if found.is_empty() {
        found = traffic::controllers(route);
    }
    found.sort();
    found.dedup();
    found
}

fn profile(context: &Context, route: &Value) -> Option<&'static Profile> {
    controllers(context, Some(route))
        .iter()
        .find_map(|controller| metrics::profile(controller))
}

fn backend_fact(context: &Context, backend: &Backend, home: &str) -> BackendFact {
    if !(backend.group.is_empty() && backend.kind == "Service") {
        // Other kinds are the data plane's to know; it says so in the route's status.
        return BackendFact::Ready;
    }
    let namespace = backend.namespace.as_deref().unwrap_or(home);
    match context.stores.service_ports(namespace, &backend.name) {
        None => BackendFact::Missing,
        Some(ports) if !ports.contains(&i32::from(backend.port)) => BackendFact::NoPort,
        Some(_) if context.stores.has_ready_endpoint(namespace, &backend.name) => {
            BackendFact::Ready
        }
        Some(_) => BackendFact::NoEndpoints,
    }
}

fn commands(canary: &Canary) -> Vec<Command> {
    Verb::ALL
        .into_iter()
        .filter_map(|verb| {
            let value = canary.annotations().get(verb.annotation())?.clone();
            Some(Command { verb, value })
        })
        .collect()
}
