//! What a pod does, read from its template; the grammar is in the crate's
//! documentation.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Behaviour {
    /// What the pod answers in `x-version`.
    pub version: String,
    /// Part of the requests that are answered with a 500, from 0 to 1.
    pub errors: f64,
    /// Part of the requests that are never answered, from 0 to 1.
    pub hangs: f64,
    pub latency: Latency,
    /// Time in ContainerCreating.
    pub start_after: Duration,
    /// Time from the start to Ready; never with `None`.
    pub ready_after: Option<Duration>,
    /// Time from each start to a crash.
    pub crash_after: Option<Duration>,
    /// Time from the start to an exit with code 0, in pods that are not always restarted.
    pub exit_after: Duration,
    pub pulls: bool,
    /// How long a terminating pod goes on serving; with `None` it is gone at once.
    pub drain: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Latency {
    Fixed(Duration),
    /// Lognormal.
    Spread {
        median: Duration,
        p99: Duration,
    },
}

/// Long enough for endpoints to reach the proxy and the gateway.
const DRAIN: Duration = Duration::from_secs(1);

impl Behaviour {
    /// # Errors
    /// The sentence that the container's status shows.
    pub(crate) fn of(pod: &Pod) -> Result<Behaviour, String> {
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        let container = container.ok_or("the pod has no container")?;
        let image = container.image.as_deref().unwrap_or_default();
        let mut behaviour = Behaviour {
            version: version(pod, container, image),
            errors: 0.0,
            hangs: 0.0,
            latency: Latency::Fixed(Duration::ZERO),
            start_after: Duration::ZERO,
            ready_after: Some(Duration::ZERO),
            crash_after: None,
            exit_after: Duration::from_secs(1),
            pulls: true,
            drain: Some(DRAIN),
        };
        // The first part of a tag is the version, never a behaviour.
        for suffix in tag(image).unwrap_or_default().split('-').skip(1) {
            behaviour.suffix(suffix);
        }
        let variables = container.env.iter().flatten();
        // The drain time first: TERMINATION=rude stands above it in any order.
        for last in [false, true] {
            for variable in variables
                .clone()
                .filter(|variable| (variable.name == "TERMINATION") == last)
            {
                let value = variable.value.as_deref().unwrap_or_default().trim();
                behaviour.variable(&variable.name, value).ok_or_else(|| {
                    format!(
                        "the testbed's sample pod cannot read {}={value:?}",
                        variable.name
                    )
                })?;
            }
        }
        Ok(behaviour)
    }

    /// One part of a tag; what is not understood is part of the version's name.
    fn suffix(&mut self, text: &str) {
        let digits = |name: &str| {
            text.strip_prefix(name)
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        match text {
            "crash" => self.crash_after = Some(Duration::ZERO),
            "hang" => self.hangs = 1.0,
            "nopull" => self.pulls = false,
            "notready" => self.ready_after = None,
            "rude" => self.drain = None,
            _ => {}
        }
        if let Some(errors) = digits("error").and_then(|percent| part(&format!("{percent}%"))) {
            self.errors = errors;
        }
        if let Some(hangs) = digits("hang").and_then(|percent| part(&format!("{percent}%"))) {
            self.hangs = hangs;
        }
        if let Some(latency) = digits("latency").and_then(latency) {
            self.latency = latency;
        }
        if let Some(time) = digits("ready").and_then(duration) {
            self.ready_after = Some(time);
        }
        if let Some(time) = digits("start").and_then(duration) {
            self.start_after = time;
        }
        if let Some(time) = digits("crash").and_then(duration) {
            self.crash_after = Some(time);
        }
        if let Some(time) = digits("drain").and_then(duration) {
            self.drain = Some(time);
        }
    }

    /// One environment variable; `None` when its value cannot be read.
    fn variable(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "ERROR_RATE" => self.errors = part(value)?,
            "HANG" => self.hangs = part(value)?,
            "LATENCY" => self.latency = latency(value)?,
            "START_AFTER" => self.start_after = duration(value)?,
            "READY_AFTER" if value == "never" => self.ready_after = None,
            "READY_AFTER" => self.ready_after = Some(duration(value)?),
            "CRASH" => {
                self.crash_after = match value {
                    "true" => Some(Duration::ZERO),
                    "false" | "" => None,
                    time => Some(duration(time)?),
                }
            }
            "EXIT_AFTER" => self.exit_after = duration(value)?,
            "PULL" => {
                self.pulls = match value {
                    "never" => false,
                    "" | "always" => true,
                    _ => return None,
                }
            }
            "DRAIN" => self.drain = Some(duration(value)?),
            "TERMINATION" => match value {
                "rude" => self.drain = None,
                "graceful" => self.drain = Some(self.drain.unwrap_or(DRAIN)),
                _ => return None,
            },
            _ => {}
        }
        Some(())
    }
}

fn version(pod: &Pod, container: &Container, image: &str) -> String {
    let label = || pod.metadata.labels.as_ref()?.get("version").cloned();
    let variable = || {
        container
            .env
            .as_ref()?
            .iter()
            .find(|variable| variable.name == "VERSION")?
            .value
            .clone()
    };
    tag(image)
        .map(str::to_owned)
        .or_else(label)
        .or_else(variable)
        .unwrap_or_else(|| "latest".into())
}

/// The tag of an image reference. (A colon before a slash belongs to a registry's port.)
fn tag(image: &str) -> Option<&str> {
    let name = image.split('@').next()?;
    let (_, tag) = name.rsplit('/').next()?.split_once(':')?;
    Some(tag)
}

/// `20%` or `0.2`.
fn part(text: &str) -> Option<f64> {
    let part = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    (0.0..=1.0).contains(&part).then_some(part)
}

/// `50ms`, or `50ms..400ms` for the median and the 99th percentile.
fn latency(text: &str) -> Option<Latency> {
    let Some((median, p99)) = text.split_once("..") else {
        return duration(text).map(Latency::Fixed);
    };
    let (median, p99) = (duration(median)?, duration(p99)?);
    (median > Duration::ZERO && median <= p99).then_some(Latency::Spread { median, p99 })
}

/// `250ms`, `5s`, `1.5s` or `2m`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(image: &str, env: &[(&str, &str)]) -> Result<Behaviour, String> {
        let env: Vec<_> = env
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let pod = json!({"metadata": {"labels": {"version": "labelled"}}, "spec": {"containers": [{"name": "app", "image": image, "env": env}]}});
        Behaviour::of(&serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn the_version_is_the_tag_or_the_label() {
        for (image, version) in [
            ("shop/api:v1", "v1"),
            ("registry:5000/shop/api:v2-error20", "v2-error20"),
            ("shop/api:v3@sha256:00", "v3"),
            ("registry:5000/shop/api", "labelled"),
            ("shop/api@sha256:00", "labelled"),
        ] {
            assert_eq!(
                of(image, &[]).expect("a behaviour").version,
                version,
                "{image}"
            );
        }
    }

    #[test]
    fn tags_and_variables_say_the_same() {
        let ms = Duration::from_millis;
        type Row = (
            &'static str,
            &'static [(&'static str, &'static str)],
            fn(&mut Behaviour),
        );
        let table: &[Row] = &[
            ("error20", &[("ERROR_RATE", "20%")], |b| b.errors = 0.2),
            ("error0.5", &[("ERROR_RATE", "0.005")], |b| b.errors = 0.005),
            ("hang", &[("HANG", "100%")], |b| b.hangs = 1.0),
            ("hang5", &[("HANG", "0.05")], |b| b.hangs = 0.05),
            ("latency50ms", &[("LATENCY", "50ms")], |b| {
                b.latency = Latency::Fixed(Duration::from_millis(50))
            }),
            ("latency50ms..1s", &[("LATENCY", "50ms..1s")], |b| {
                b.latency = Latency::Spread {
                    median: Duration::from_millis(50),
                    p99: Duration::from_secs(1),
                }
            }),
            ("ready5s", &[("READY_AFTER", "5s")], |b| {
                b.ready_after = Some(Duration::from_secs(5))
            }),
            ("notready", &[("READY_AFTER", "never")], |b| {
                b.ready_after = None
            }),
            ("start2s", &[("START_AFTER", "2s")], |b| {
                b.start_after = Duration::from_secs(2)
            }),
            ("crash", &[("CRASH", "true")], |b| {
                b.crash_after = Some(Duration::ZERO)
            }),
            ("crash1.5s", &[("CRASH", "1.5s")], |b| {
                b.crash_after = Some(Duration::from_millis(1500))
            }),
            ("nopull", &[("PULL", "never")], |b| b.pulls = false),
            ("rude", &[("TERMINATION", "rude"), ("DRAIN", "9s")], |b| {
                b.drain = None
            }),
            (
                "drain3s",
                &[("TERMINATION", "graceful"), ("DRAIN", "3s")],
                |b| b.drain = Some(Duration::from_secs(3)),
            ),
            ("rc1-alpine", &[], |_| {}),
        ];
        for (suffix, env, change) in table {
            let mut wanted = of("shop/api:v2", &[]).expect("plain");
            change(&mut wanted);
            assert_eq!(
                of("shop/api:v2", env).expect("by variables"),
                wanted,
                "{env:?}"
            );
            wanted.version = format!("v2-{suffix}");
            assert_eq!(
                of(&format!("shop/api:v2-{suffix}"), &[]).expect("by tag"),
                wanted,
                "{suffix}"
            );
        }
        let both = of("shop/api:v2-error20-latency50ms", &[("ERROR_RATE", "0")]).expect("both");
        assert_eq!(
            (both.errors, both.latency),
            (0.0, Latency::Fixed(ms(50))),
            "a variable stands above a tag"
        );
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (name, value) in [
            ("ERROR_RATE", "120%"),
            ("LATENCY", "50"),
            ("READY_AFTER", "soon"),
            ("TERMINATION", "kind"),
            ("CRASH", "yes"),
        ] {
            let said = of("shop/api:v1", &[(name, value)]).expect_err(name);
            assert!(said.contains(name) && said.contains(value), "{said}");
        }
    }
}
