//! What a Prometheus answers to a query, from bytes to types.
//! <https://prometheus.io/docs/prometheus/latest/querying/api/>

use crate::api::Time;
use chrono::DateTime;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The answer to a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub data: Data,
    /// What the server wants known about the answer, such as a part of it that is missing.
    pub warnings: Vec<String>,
}

/// The four types of result that a query can have.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    Scalar { value: f64, at: Time },
    Vector(Vec<Sample>),
    Matrix(Vec<Series>),
    String(String),
}

impl Data {
    /// The type's name, as Prometheus calls it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Scalar { .. } => "scalar",
            Self::Vector(_) => "vector",
            Self::Matrix(_) => "matrix",
            Self::String(_) => "string",
        }
    }
}

/// One series of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    /// May be NaN or infinite.
    pub value: f64,
    pub at: Time,
}

/// One series of a range vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub values: Vec<(Time, f64)>,
}

/// What a body holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    Answer(Answer),
    /// The server could not, or would not, answer.
    Refusal {
        kind: String,
        message: String,
    },
}

/// Reads a body.
///
/// # Errors
/// A clause that says what is wrong with it.
pub fn parse(body: &[u8]) -> Result<Body, String> {
    let raw: Raw = serde_json::from_slice(body)
        .map_err(|e| format!("it is not the JSON of a Prometheus ({e})"))?;
    match (&*raw.status, raw.data) {
        ("success", Some(data)) => Ok(Body::Answer(Answer {
            data: result(data)?,
            warnings: raw.warnings,
        })),
        ("success", None) => Err("it holds no data".into()),
        ("error", _) => Ok(Body::Refusal {
            kind: raw.error_type,
            message: raw.error,
        }),
        (status, _) => Err(format!("its status is {status:?}")),
    }
}

#[derive(Deserialize)]
struct Raw {
    status: String,
    data: Option<RawData>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct RawData {
    #[serde(rename = "resultType")]
    kind: String,
    result: serde_json::Value,
}

/// Seconds since 1970 and a value as text.
type Pair = (f64, String);

#[derive(Deserialize)]
struct RawSeries {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: Option<Pair>,
    values: Option<Vec<Pair>>,
}

fn result(data: RawData) -> Result<Data, String> {
    let RawData { kind, result } = data;
    Ok(match &*kind {
        "scalar" => {
            let (at, value) = point(&read(result)?)?;
            Data::Scalar { value, at }
        }
        "string" => Data::String(read::<Pair>(result)?.1),
        "vector" => Data::Vector(
            read::<Vec<RawSeries>>(result)?
                .into_iter()
                .map(|series| {
                    let (at, value) = point(&series.value.ok_or_else(no_floats)?)?;
                    let labels = series.metric;
                    Ok(Sample { labels, value, at })
                })
                .collect::<Result<_, String>>()?,
        ),
        "matrix" => Data::Matrix(
            read::<Vec<RawSeries>>(result)?
                .into_iter()
                .map(|series| {
                    let values = series.values.ok_or_else(no_floats)?;
                    let labels = series.metric;
                    let values = values.iter().map(point).collect::<Result<_, _>>()?;
                    Ok(Series { labels, values })
                })
                .collect::<Result<_, String>>()?,
        ),
        other => return Err(format!("its result is of an unknown type, {other:?}")),
    })
}

fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|e| format!("its result is malformed ({e})"))
}

fn no_floats() -> String {
    "a series has no plain numbers; it may be a native histogram, which needs a function such as histogram_quantile".into()
}

fn point((seconds, value): &Pair) -> Result<(Time, f64), String> {
    // A float outside the range becomes the nearest end of it, which is no time.
    let at = DateTime::from_timestamp_millis((seconds * 1e3).round() as i64)
        .ok_or_else(|| format!("{seconds} is no time"))?;
    let value = value
        .parse()
        .map_err(|_| format!("{value:?} is no number"))?;
    Ok((at, value))
}
