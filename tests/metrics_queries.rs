//! Answers and templates: everything about queries that needs no server.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use chrono::TimeDelta;
use proptest::prelude::*;
use serin::analysis::Measured;
use serin::metrics::answer::{self, Body};
use serin::metrics::template::{check, render};
use serin::metrics::{Answer, TemplateError, Variables, single};

fn parsed(body: &str) -> Result<Answer, String> {
    match answer::parse(body.as_bytes())? {
        Body::Answer(answer) => Ok(answer),
        Body::Refusal { kind, message } => Err(format!("{kind}: {message}")),
    }
}

fn success(kind: &str, result: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#)
}

#[test]
fn one_value_or_the_reason_why_not() {
    let one = r#"[{"metric":{"a":"b"},"value":[1700000000.123,"0.25"]}]"#;
    let three = r#"[{"value":[1,"1"]},{"value":[1,"2"]},{"value":[1,"3"]}]"#;
    let value = |v: &str| format!(r#"[{{"metric":{{}},"value":[1,"{v}"]}}]"#);
    let no_data = |why: &str| Measured::NoData(why.into());
    let table = [
        (success("vector", one), Measured::Value(0.25)),
        (success("scalar", r#"[1,"7"]"#), Measured::Value(7.0)),
        (success("vector", "[]"), no_data("the query answered no series")),
        (success("vector", &value("NaN")), no_data("the query answered NaN, which is what 0 divided by 0 gives")),
        (success("vector", &value("+Inf")), no_data("the query answered infinity, which is what division by 0 gives")),
        (success("scalar", r#"[1,"-Inf"]"#), no_data("the query answered infinity, which is what division by 0 gives")),
        (success("vector", three), Measured::Error("the query answered 3 series; aggregate it to one, such as with sum(...) or max(...)".into())),
        (success("matrix", r#"[{"values":[[1,"1"]]}]"#), Measured::Error("the query answered a matrix; it must answer one number".into())),
        (success("string", r#"[1,"hi"]"#), Measured::Error("the query answered a string; it must answer one number".into())),
    ];
    for (body, want) in table {
        assert_eq!(single(&parsed(&body).unwrap()), want, "{body}");
    }
}

#[test]
fn bodies_that_are_no_answer() {
    for (body, why) in [
        ("", "not the JSON"),
        ("<html>", "not the JSON"),
        ("[]", "not the JSON"),
        (r#"{"status":"success"}"#, "no data"),
        (r#"{"status":"maybe"}"#, "status is \"maybe\""),
        (
            r#"{"status":"error","errorType":"execution","error":"too many samples"}"#,
            "execution: too many samples",
        ),
        (&success("vector", "7"), "malformed"),
        (&success("vector", r#"[{"value":[1]}]"#), "malformed"),
        (
            &success("vector", r#"[{"value":[1,"seven"]}]"#),
            "no number",
        ),
        (&success("vector", r#"[{"value":[1e300,"7"]}]"#), "no time"),
        (
            &success("vector", r#"[{"metric":{},"histogram":[1,{}]}]"#),
            "native histogram",
        ),
        (&success("tensor", "[]"), "unknown type"),
    ] {
        let error = parsed(body).unwrap_err();
        assert!(error.contains(why), "{body}: {error}");
    }
    let warned = r#"{"status":"success","warnings":["a store is missing"],"data":{"resultType":"vector","result":[]}}"#;
    assert_eq!(parsed(warned).unwrap().warnings, ["a store is missing"]);
}

fn variables() -> Variables {
    Variables {
        namespace: "shop".into(),
        name: "checkout".into(),
        stable: "api-v1".into(),
        canary: "api-v2".into(),
        service: "api-v2".into(),
        window: TimeDelta::seconds(90),
    }
}

#[test]
fn placeholders_are_filled_in() {
    let query = r#"sum(rate(x{namespace="{{ namespace }}",cn="{{name}}",a="{{ stable }}",b="{{  canary}}",s="{{service}}"}[{{ window }}]))"#;
    assert_eq!(
        render(query, &variables()).unwrap(),
        r#"sum(rate(x{namespace="shop",cn="checkout",a="api-v1",b="api-v2",s="api-v2"}[90s]))"#
    );
    assert_eq!(check(query), Ok(()));
    let millis = Variables {
        window: TimeDelta::milliseconds(1_500),
        ..variables()
    };
    assert_eq!(render("x[{{ window }}]", &millis).unwrap(), "x[1500ms]");
}

#[test]
fn no_value_breaks_out() {
    for bad in [
        "",
        "a\"} or vector(0) #",
        "a b",
        "a\\",
        "a\n",
        "ü",
        "{{ name }}",
    ] {
        let variables = Variables {
            canary: bad.into(),
            ..variables()
        };
        let error = render(r#"x{s="{{ canary }}"}"#, &variables).unwrap_err();
        assert!(
            matches!(error, TemplateError::Value { name: "canary", .. }),
            "{bad}"
        );
        // What is not used does no harm.
        assert!(render("up", &variables).is_ok());
    }
    let never = Variables {
        window: TimeDelta::zero(),
        ..variables()
    };
    assert!(render("x[{{ window }}]", &never).is_err());
}

#[test]
fn a_bad_query_is_refused_with_its_place() {
    for (query, why) in [
        (
            "up{a=\"{{ nmae }}\"}",
            "placeholder {{ nmae }}, which is not known; known are namespace, name, stable, canary, service, window",
        ),
        ("up\n{a=\"{{ name\"}", "{{ without }} at line 2, column 5"),
        (
            "sum(rate(x[5m])",
            "no PromQL at line 1, column 4: this ( is not closed",
        ),
        (
            "sum(\n  x))",
            "no PromQL at line 2, column 5: there is no ( for this )",
        ),
        (
            "x{a=\"b}",
            "no PromQL at line 1, column 5: the string that begins with \" has no end",
        ),
        ("{{ name }}_total ! 3", "no PromQL at line 1, column 19"),
        ("sum(x) garbage by", "no PromQL at line 1, column 8"),
        (
            "rate(x[{{ window }}]) / / 2",
            "no PromQL at line 1, column 23: it cannot be understood from here on",
        ),
        ("up{a=\"{{ name\n}}\"} ! 3", "no PromQL at line 2, column 7"),
        ("rate(up)", "no PromQL"),
        ("", "no PromQL at line 1, column 1"),
        ("   ", "no PromQL"),
        (
            "x[5m]",
            "answers a range vector, not one number; use a function over it, such as rate(...)",
        ),
        ("\"hello\"", "answers a string"),
        ("nosuchfunction(x)", "no PromQL"),
    ] {
        let error = check(query).unwrap_err().to_string();
        assert!(error.contains(why), "{query}: {error}");
    }
    for query in [
        "1 - sum(rate(x{code!~\"5..\"}[{{window}}])) / sum(rate(x[{{ window }}]))",
        "histogram_quantile(0.99, sum by (le) (rate(d_bucket{s=\"{{ canary }}\"}[{{ window }}]))) * 1000",
        "max_over_time(sum(queue{ns='{{ namespace }}'})[{{ window }}:10s]) # depth { of the queue",
        "x offset {{ window }}",
        "42",
    ] {
        assert_eq!(check(query), Ok(()), "{query}");
    }
}

#[test]
fn a_deep_query_is_no_way_to_end_the_process() {
    for (open, close) in [
        ("(", ")"),
        ("-", ""),
        ("sum(", ")"),
        ("x + ", ""),
        ("{{name}} or ", ""),
    ] {
        let n = 4_096 / (open.len() + close.len());
        let query = format!("{}x{}", open.repeat(n), close.repeat(n));
        let _ = check(&query);
        let _ = check(&open.repeat(n));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_as_a_query(query in r#"([a-z]{1,4}|[(){}\[\]"'`#+/*:, =~!.0-9\\\n]|\{\{ name \}\}|\[5m\]|é){0,40}"#) {
        if let Err(error) = check(&query) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_bytes_as_a_body(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = answer::parse(&body);
    }
}

/// The parser takes any number for a duration where one may stand, and panics at one that no duration can be.
#[test]
fn numbers_that_no_duration_can_be_are_refused() {
    for query in [
        "max_over_time(up[1e30])",
        "sum(up offset 1e300)",
        "up offset 99999999999999999999999",
        "up offset 0xffffffffffffffffffff",
        "max_over_time(up[Inf])",
        "max_over_time(up[NaN:1m])",
        "max_over_time(up[5m:1e40])",
        "up offset -Inf",
        "up offset (1e40)",
    ] {
        assert!(serin::metrics::check(query).is_err(), "{query} was taken");
    }
    for query in [
        "sum(up) > bool 1e9",
        "sum(up{job=\"1e300\"}) or vector(0) # 1e300",
        "vector(Inf)",
        "max_over_time(up[5m:1m] offset 1h)",
    ] {
        assert_eq!(serin::metrics::check(query), Ok(()), "{query}");
    }
}
