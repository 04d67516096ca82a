//! Queries that tenants write.

use crate::mutate::{self, fuzz};
use chrono::TimeDelta;
use serin::metrics::{TemplateError, Variables, check, render};

const SEEDS: [&str; 9] = [
    "sum(rate(x{namespace=\"{{ namespace }}\",cn=\"{{name}}\",a=\"{{ stable }}\",s=\"{{service}}\"}[{{ window }}]))",
    "1 - sum(rate(x{code!~\"5..\"}[{{window}}])) / sum(rate(x[{{ window }}]))",
    "histogram_quantile(0.99, sum by (le) (rate(d_bucket{s=\"{{ canary }}\"}[{{ window }}]))) * 1000",
    "max_over_time(sum(queue{ns='{{ namespace }}'})[{{ window }}:10s] offset 1w) # depth { of the queue",
    "label_replace(up, \"a\", `$1`, \"b\", \"(.*)\") or on(x) group_left(y) vector(0)",
    "x @ end() unless -x ^ 2 % 3 == bool 0x1F",
    "topk(3, {__name__=~\"a.+\", \"b c\"=\"d\"})",
    "\"{{ name }}\"",
    "x[5m]",
];

#[test]
fn queries() {
    fuzz("queries", |rng| {
        let seed = *rng.pick(&SEEDS);
        let mut query = match rng.below(10) {
            0 => rng
                .pick(&[
                    "(", "-", "sum(", "{{", "a+", "{a=\"", "[", "1 or ", "\"", "🐤",
                ])
                .repeat(1 << rng.below(9)),
            1 => seed.to_owned(),
            _ => mutate::text(rng, seed),
        };
        // The most that the CRD takes.
        query = query.chars().take(4096).collect();
        let checked = check(&query);
        let variables = Variables {
            namespace: "shop".into(),
            name: "web".into(),
            stable: "v1".into(),
            canary: if rng.chance(90) {
                "v2".into()
            } else {
                mutate::word(rng)
            },
            service: "v2".into(),
            window: TimeDelta::milliseconds(rng.word() as i64 >> rng.below(64) >> 1),
        };
        let rendered = render(&query, &variables);
        match &checked {
            // What was found good has no placeholder that cannot be filled in.
            Ok(()) => {
                if let Err(error) = rendered {
                    assert!(matches!(error, TemplateError::Value { .. }), "{error}");
                }
            }
            Err(error) => {
                if let TemplateError::Syntax { at, .. } | TemplateError::Unclosed(at) = error {
                    let lines: Vec<&str> = query.split('\n').collect();
                    let line = lines.get(at.line - 1);
                    let line = line.unwrap_or_else(|| panic!("{at} is not in {query:?}"));
                    assert!(
                        at.column <= line.chars().count() + 1,
                        "{at} is not in {query:?}"
                    );
                }
                assert!(!error.to_string().is_empty());
            }
        }
    });
}
