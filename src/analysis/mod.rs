use crate::api::*;
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorLimits {
    pub max: Option<f64>,
    pub max_ratio: Option<f64>,
}
pub struct Window {
    pub delta: ArmCounts,
    pub share: f64,
    pub baseline: Option<Count>,
}
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    Value(f64),
    NoData(String),
    Error(String),
}
pub struct MetricLimits<'a> {
    pub name: &'a str,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub failure_limit: u32,
}
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arm {
    Canary,
    Stable,
}
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub at: Time,
    pub series: Vec<SeriesSample>,
}
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesSample {
    pub key: String,
    pub arm: Arm,
    pub failed: bool,
    pub value: f64,
}
pub fn judge_error_rate(
    _l: &ErrorLimits,
    _p: Option<&CheckStatus>,
    _w: &Window,
    now: Time,
) -> CheckStatus {
    blank(now)
}
pub fn judge_metric(
    _l: &MetricLimits<'_>,
    _p: Option<&CheckStatus>,
    _m: &Measured,
    now: Time,
) -> CheckStatus {
    blank(now)
}
pub fn no_answer(_n: &str, _p: Option<&CheckStatus>, _m: &Measured, now: Time) -> CheckStatus {
    blank(now)
}
pub fn advance(_p: Option<&Counters>, r: &Reading) -> (Counters, ArmCounts) {
    (
        Counters {
            at: r.at,
            series: Default::default(),
        },
        ArmCounts::default(),
    )
}
pub fn blank(at: Time) -> CheckStatus {
    CheckStatus {
        name: String::new(),
        verdict: Verdict::NoData,
        value: None,
        limit: None,
        message: String::new(),
        at,
        counts: None,
        evidence: None,
        failures: 0,
        relative: None,
        absolute: None,
        absolute_stable: None,
    }
}
