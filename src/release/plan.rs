//! A plan: the steps and limits of a release, parsed and folded.

use crate::analysis::ErrorLimits;
use crate::analysis::error_rate::DEFAULT_MAX_RATIO;
use crate::api::{
    Analysis, CanarySpec, ErrorRate, HeaderRule, Metric, OnDeadline, OnInconclusive, PlanSpec,
    QuantityError, Span, Step, VsStable, Wanted,
};
use chrono::TimeDelta;
use thiserror::Error;

/// A field of the spec that does not say what it must.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {error}")]
pub struct PlanError {
    pub field: String,
    pub error: QuantityError,
}

/// A step with everything said that earlier steps have said.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedStep {
    pub weight: u8,
    pub headers: Vec<HeaderRule>,
    pub hold: TimeDelta,
    pub deadline: TimeDelta,
    pub on_deadline: OnDeadline,
    pub min_requests: u64,
    pub approval: bool,
}

/// The check of the error rate, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorCheck {
    pub limits: ErrorLimits,
    pub on_no_data: OnInconclusive,
    pub on_error: OnInconclusive,
}

/// The check of a metric, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricCheck {
    pub name: String,
    pub query: String,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub failure_limit: u32,
    pub on_no_data: OnInconclusive,
    pub on_error: OnInconclusive,
}

/// The steps and limits of a release.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub steps: Vec<PlannedStep>,
    pub error_rate: Option<ErrorCheck>,
    pub metrics: Vec<MetricCheck>,
    /// How often checks are made.
    pub interval: TimeDelta,
}

const DEFAULT_INTERVAL: TimeDelta = TimeDelta::seconds(10);
const DEFAULT_GRACE: TimeDelta = TimeDelta::minutes(10);

impl PlanSpec {
    /// What the spec says now, with the defaults filled in.
    #[must_use]
    pub fn of(spec: &CanarySpec) -> Self {
        let ramp = |weight| Step {
            weight: Some(weight),
            hold: Some(Span::new("2m")),
            ..Step::default()
        };
        let steps = match spec.steps.as_slice() {
            [] => [5, 25, 50].map(ramp).to_vec(),
            steps => steps.to_vec(),
        };
        let analysis = spec.analysis.clone().unwrap_or_else(|| Analysis {
            error_rate: Some(ErrorRate {
                vs_stable: Some(VsStable::default()),
                ..ErrorRate::default()
            }),
            ..Analysis::default()
        });
        Self { steps, analysis }
    }
}

impl Plan {
    /// Parses and folds a plan.
    ///
    /// # Errors
    /// The first field whose text is not the quantity that it must be.
    pub fn of(spec: &PlanSpec) -> Result<Self, PlanError> {
        let PlanSpec { steps, analysis } = spec;
        let mut folded: Vec<PlannedStep> = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            let planned = planned_step(index, step, folded.last())?;
            folded.push(planned);
        }
        let Analysis {
            error_rate,
            metrics,
            interval,
        } = analysis;
        let interval = match interval {
            Some(span) => span.parse().map_err(at("analysis.interval"))?,
            None => DEFAULT_INTERVAL,
        };
        Ok(Self {
            steps: folded,
            error_rate: error_rate.as_ref().map(error_check).transpose()?,
            metrics: metrics.iter().map(metric_check).collect::<Result<_, _>>()?,
            interval: interval.clamp(TimeDelta::seconds(1), TimeDelta::hours(1)),
        })
    }

    /// The step of this index, or the last one.
    ///
    /// A plan is never empty: [`PlanSpec::of`] fills in a default ramp.
    #[must_use]
    pub fn step(&self, index: u32) -> Option<&PlannedStep> {
        self.steps.get(index as usize).or(self.steps.last())
    }

    /// Every split that the plan will ask for, so that a route can be refused before anything is shifted.
    #[must_use]
    pub fn splits(&self) -> Vec<Wanted> {
        self.steps.iter().map(PlannedStep::split).collect()
    }
}

impl PlannedStep {
    #[must_use]
    pub fn split(&self) -> Wanted {
        Wanted::Split {
            weight: self.weight,
            headers: self.headers.clone(),
        }
    }
}

fn planned_step(
    index: usize,
    step: &Step,
    before: Option<&PlannedStep>,
) -> Result<PlannedStep, PlanError> {
    let Step {
        weight,
        headers,
        hold,
        deadline,
        on_deadline,
        min_requests,
        approval,
    } = step;
    let span = |name: &str, span: &Option<Span>| match span {
        Some(span) => span
            .parse()
            .map(Some)
            .map_err(at(&format!("steps[{index}].{name}"))),
        None => Ok(None),
    };
    let hold = span("hold", hold)?.unwrap_or_default();
    Ok(PlannedStep {
        weight: weight.or(before.map(|b| b.weight)).unwrap_or(0).min(100),
        headers: headers
            .clone()
            .or_else(|| before.map(|b| b.headers.clone()))
            .unwrap_or_default(),
        deadline: span("deadline", deadline)?.unwrap_or(hold + DEFAULT_GRACE),
        hold,
        on_deadline: on_deadline.unwrap_or_default(),
        min_requests: min_requests.unwrap_or(0),
        approval: *approval,
    })
}

fn error_check(check: &ErrorRate) -> Result<ErrorCheck, PlanError> {
    let ErrorRate {
        max,
        vs_stable,
        on_no_data,
        on_error,
    } = check;
    let max = max
        .as_ref()
        .map(|max| max.parse().map_err(at("analysis.errorRate.max")))
        .transpose()?;
    let max_ratio = match vs_stable {
        Some(VsStable {
            max_ratio: Some(ratio),
        }) => Some(
            ratio
                .parse()
                .map_err(at("analysis.errorRate.vsStable.maxRatio"))?,
        ),
        Some(VsStable { max_ratio: None }) => Some(DEFAULT_MAX_RATIO),
        None => None,
    };
    Ok(ErrorCheck {
        limits: ErrorLimits { max, max_ratio },
        on_no_data: *on_no_data,
        on_error: *on_error,
    })
}

fn metric_check(metric: &Metric) -> Result<MetricCheck, PlanError> {
    let Metric {
        name,
        query,
        max,
        min,
        failure_limit,
        on_no_data,
        on_error,
    } = metric;
    let limit = |which: &str, number: &Option<crate::api::Number>| {
        number
            .as_ref()
            .map(|n| {
                n.parse()
                    .map_err(at(&format!("analysis.metrics[{name}].{which}")))
            })
            .transpose()
    };
    Ok(MetricCheck {
        name: name.clone(),
        query: query.clone(),
        min: limit("min", min)?,
        max: limit("max", max)?,
        failure_limit: *failure_limit,
        on_no_data: *on_no_data,
        on_error: *on_error,
    })
}

fn at(field: &str) -> impl Fn(QuantityError) -> PlanError + use<> {
    let field = field.to_owned();
    move |error| PlanError {
        field: format!("spec.{field}"),
        error,
    }
}
