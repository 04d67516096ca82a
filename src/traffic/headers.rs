//! The rules for header testers: copies of a managed rule that more headers lead to.
//!
//! A copy wins over its rule wherever it stands, since precedence goes by the number of headers.

use super::kind::Shape;
use super::{TrafficError, split, view};
use crate::api::{HeaderMatch, HeaderRule, MatchKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The longest part of a rule's name that comes from the Canary's, so that the name is a DNS label in
/// length: 63 less `serin-`, two digits, another two, and what is between them.
const OWNER: usize = 50;

/// The rules that send requests with one of the headers to the candidate, for one managed rule. One,
/// but one for each match where a filter replaces the path's prefix: the API wants a single match then.
pub(super) fn testers(
    route: &Value,
    at: (usize, u32),
    owner: &str,
    canary: Value,
    headers: &[HeaderRule],
) -> Result<Vec<Value>, TrafficError> {
    if headers.is_empty() {
        return Ok(Vec::new());
    }
    let (at, index) = at;
    let rule = &view::rules(route)[at];
    let place = || (view::title(route), view::place(at, rule));
    let shape = Shape::of(route)?;
    let matches = product(&shape.matches(rule), headers).map_err(|header| {
        let (route, rule) = place();
        TrafficError::HeaderConflict {
            route,
            rule,
            header,
        }
    })?;
    let most = matches.iter().map(|m| view::list(m, "headers").len()).max();
    if let Some(count) = most.filter(|count| *count > shape.max_headers) {
        let (route, rule) = place();
        let limit = shape.max_headers;
        return Err(TrafficError::TooManyHeaders {
            route,
            rule,
            count,
            limit,
        });
    }
    let chunk = if replaces_prefix(rule) {
        1
    } else {
        matches.len()
    };
    if chunk > shape.max_matches {
        let (route, rule) = place();
        let (count, limit) = (chunk, shape.max_matches);
        return Err(TrafficError::TooManyMatches {
            route,
            rule,
            count,
            limit,
        });
    }
    let mut canary = canary;
    split::weigh(&mut canary, Some(1));
    let copies = matches.chunks(chunk).enumerate().map(|(part, matches)| {
        let mut copy = rule.clone();
        if let Some(object) = copy.as_object_mut() {
            object.insert("name".into(), json!(name(owner, index, part)));
            object.insert("matches".into(), json!(matches));
            object.insert("backendRefs".into(), json!([canary]));
        }
        copy
    });
    Ok(copies.collect())
}

/// Each match with each alternative's headers. Err names a header when no product is possible, or
/// none says more than the match it comes from.
fn product(matches: &[Value], headers: &[HeaderRule]) -> Result<Vec<Value>, String> {
    let mut product = Vec::new();
    let mut conflict = None;
    for base in matches {
        for alternative in headers {
            match combined(base, alternative) {
                Ok(both) if product.contains(&both) => {}
                Ok(both) => product.push(both),
                Err(header) => {
                    conflict.get_or_insert(header);
                }
            }
        }
    }
    match conflict {
        Some(header) if product.is_empty() => Err(header),
        _ => Ok(product),
    }
}

/// A match with an alternative's headers too. Err names a header that would have to have two values,
/// or the one that the match asks for already if that is all.
fn combined(base: &Value, alternative: &HeaderRule) -> Result<Value, String> {
    let mut list = view::list(base, "headers").to_vec();
    let before = list.len();
    for header in alternative.all() {
        match list.iter().find(|other| same_name(other, header)) {
            None => list.push(json!({
                "type": header.kind,
                "name": header.name,
                "value": header.value,
            })),
            Some(other) if asks(other, header) => {}
            Some(_) => return Err(header.name.clone()),
        }
    }
    if list.len() == before {
        return Err(alternative.header.name.clone());
    }
    let mut both = base.clone();
    if let Some(object) = both.as_object_mut() {
        object.insert("headers".into(), Value::Array(list));
    }
    Ok(both)
}

fn same_name(written: &Value, header: &HeaderMatch) -> bool {
    view::name(written).is_some_and(|name| name.eq_ignore_ascii_case(&header.name))
}

fn asks(written: &Value, header: &HeaderMatch) -> bool {
    let kind = match header.kind {
        MatchKind::Exact => "Exact",
        MatchKind::RegularExpression => "RegularExpression",
    };
    same_name(written, header)
        && view::text(written, "value") == Some(&header.value)
        && view::text(written, "type").unwrap_or("Exact") == kind
}

/// Whether every match of a rule asks for all the headers of an alternative.
pub(super) fn asks_for(rule: &Value, headers: &[HeaderRule]) -> bool {
    let matches = view::list(rule, "matches");
    let asked = |found: &Value| {
        let list = view::list(found, "headers");
        headers.iter().any(|alternative| {
            alternative
                .all()
                .all(|header| list.iter().any(|written| asks(written, header)))
        })
    };
    !matches.is_empty() && matches.iter().all(asked)
}

/// Whether every match of a rule asks for some header, as those of added rules do.
pub(super) fn asks_for_any(rule: &Value) -> bool {
    let matches = view::list(rule, "matches");
    !matches.is_empty()
        && matches
            .iter()
            .all(|found| !view::list(found, "headers").is_empty())
}

/// Whether a filter of the rule or of a reference replaces the prefix of the path.
fn replaces_prefix(rule: &Value) -> bool {
    std::iter::once(rule)
        .chain(view::refs(rule))
        .flat_map(|holder| view::list(holder, "filters"))
        .flat_map(|filter| [filter.get("urlRewrite"), filter.get("requestRedirect")])
        .filter_map(|rewrite| rewrite?.get("path"))
        .any(|path| view::text(path, "type") == Some("ReplacePrefixMatch"))
}

/// The name of an added rule, such as `serin-checkout-0`, or `serin-checkout-0.1` for a second part.
pub(super) fn name(owner: &str, index: u32, part: usize) -> String {
    let prefix = prefix(owner);
    match part {
        0 => format!("{prefix}{index}"),
        part => format!("{prefix}{index}.{part}"),
    }
}

/// Whether a rule's name is one that a Canary gives. The owner's own name cannot be mistaken for
/// a place, since a place always follows it.
pub(super) fn is_name_of(owner: &str, name: &str) -> bool {
    name.strip_prefix(&prefix(owner)).is_some_and(is_place)
}

/// Whether a rule's name is one that some Canary gives.
pub(super) fn is_any_name(name: &str) -> bool {
    let rest = name.strip_prefix("serin-");
    rest.and_then(|rest| rest.rsplit_once('-'))
        .is_some_and(|(_, place)| is_place(place))
}

fn is_place(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((index, part)) => digits(index) && digits(part),
        None => digits(text),
    }
}

fn prefix(owner: &str) -> String {
    if owner.len() <= OWNER {
        return format!("serin-{owner}-");
    }
    let digest = Sha256::digest(owner);
    let hex: String = digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let head: String = owner.chars().take(OWNER - 9).collect();
    let head = head.trim_end_matches(['-', '.']);
    format!("serin-{head}-{hex}-")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rule(headers: &[(&str, &str)]) -> HeaderRule {
        let mut headers = headers.iter().map(|(name, value)| HeaderMatch {
            name: (*name).into(),
            value: (*value).into(),
            kind: MatchKind::Exact,
        });
        HeaderRule {
            header: headers.next().unwrap(),
            and: headers.collect(),
        }
    }

    fn base(headers: &[(&str, &str)]) -> Value {
        let list: Vec<Value> = headers
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        json!({"headers": list})
    }

    /// The headers of each product, as `name=value`.
    fn of(matches: &[Value], headers: &[HeaderRule]) -> Result<Vec<Vec<String>>, String> {
        let text = |header: &Value| {
            let part = |field| view::text(header, field).unwrap_or_default().to_owned();
            format!("{}={}", part("name"), part("value"))
        };
        let line = |found: &Value| view::list(found, "headers").iter().map(text).collect();
        product(matches, headers).map(|product| product.iter().map(line).collect())
    }

    #[test]
    fn products() {
        let canary = || rule(&[("x-canary", "true")]);
        let both = rule(&[("x-canary", "true"), ("x-team", "qa")]);
        assert_eq!(of(&[base(&[])], &[canary()]).unwrap(), [["x-canary=true"]]);
        assert_eq!(
            of(
                &[base(&[]), base(&[("a", "1")])],
                &[canary(), rule(&[("b", "2")])]
            )
            .unwrap(),
            [
                vec!["x-canary=true"],
                vec!["b=2"],
                vec!["a=1", "x-canary=true"],
                vec!["a=1", "b=2"]
            ],
            "each match with each alternative"
        );
        assert_eq!(
            of(
                &[base(&[("X-Canary", "true")])],
                std::slice::from_ref(&both)
            )
            .unwrap(),
            [["X-Canary=true", "x-team=qa"]],
            "one header name once, whatever its case"
        );
        assert_eq!(
            of(&[base(&[("x-canary", "false")]), base(&[])], &[canary()]).unwrap(),
            [["x-canary=true"]],
            "what cannot be is left out"
        );
        assert_eq!(of(&[base(&[])], &[canary(), canary()]).unwrap().len(), 1);
        let refused = Err("x-canary".to_owned());
        assert_eq!(of(&[base(&[("x-canary", "false")])], &[canary()]), refused);
        assert_eq!(
            of(&[base(&[("x-canary", "true")])], &[canary()]),
            refused,
            "a match that asks for it already would win over its copy"
        );
        let twice = rule(&[("x-canary", "true"), ("X-Canary", "false")]);
        assert_eq!(of(&[base(&[])], &[twice]), Err("X-Canary".into()));
    }

    #[test]
    fn names_say_whose_they_are() {
        assert_eq!(name("checkout", 3, 0), "serin-checkout-3");
        assert_eq!(name("checkout", 3, 2), "serin-checkout-3.2");
        let (a, b) = ("a".repeat(60) + "b", "a".repeat(60) + "c");
        assert!(name(&a, 15, 63).len() <= 63, "{}", name(&a, 15, 63).len());
        assert_ne!(name(&a, 0, 0), name(&b, 0, 0));
        for (owner, name, whose) in [
            ("a", "serin-a-1", true),
            ("a", "serin-a-1.2", true),
            ("a", "serin-a-1-2", false),
            ("a-1", "serin-a-1-2", true),
            ("a-1", "serin-a-1", false),
            ("a", "serin-a-", false),
            ("a", "serin-a-x", false),
            ("a", "a-1", false),
        ] {
            assert_eq!(is_name_of(owner, name), whose, "{owner} {name}");
        }
        assert!(is_any_name("serin-a-1-2"));
        assert!(!is_any_name("serin-menu"));
    }
}
