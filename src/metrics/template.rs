//! Queries with placeholders: `{{ canary }}` and the like.

use chrono::TimeDelta;
use promql_parser::parser::{self, value::ValueType};
use thiserror::Error;

/// The placeholders that a query may have.
pub const PLACEHOLDERS: [&str; 6] = ["namespace", "name", "stable", "canary", "service", "window"];

/// What the placeholders stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variables {
    /// The Canary's namespace.
    pub namespace: String,
    /// The Canary's name.
    pub name: String,
    /// Name of the stable backend.
    pub stable: String,
    /// Name of the canary's backend.
    pub canary: String,
    /// Name of the backend that is judged, which is the canary's.
    pub service: String,
    /// The time that a value should be about, at least a millisecond.
    pub window: TimeDelta,
}

/// Why a query cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    #[error("the query has the placeholder {{{{ {0} }}}}, which is not known; known are {known}", known = PLACEHOLDERS.join(", "))]
    Unknown(String),
    #[error("the query has {{{{ without }}}} at {0}")]
    Unclosed(Position),
    #[error("{name} is {value:?}, which cannot stand in a query")]
    Value { name: &'static str, value: String },
    #[error("the query is no PromQL at {at}: {why}")]
    Syntax { at: Position, why: String },
    #[error("the query answers a {0}, not one number; {hint}", hint = hint(.0))]
    Type(&'static str),
}

/// A place in a query, both counted from 1; a column is a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl Position {
    fn of(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

fn hint(kind: &str) -> &'static str {
    match kind {
        "range vector" => "use a function over it, such as rate(...)",
        _ => "compute a number",
    }
}

/// Fills in the placeholders.
///
/// A value that holds anything but what names are made of (letters, digits, `-`, `_`, `.`) is
/// refused, so none can end a string or a selector of the query.
///
/// # Errors
/// When a placeholder is not known or has no end, or a value is refused.
pub fn render(template: &str, variables: &Variables) -> Result<String, TemplateError> {
    fill(template, |name, _| {
        let value = match name {
            "namespace" => &variables.namespace,
            "name" => &variables.name,
            "stable" => &variables.stable,
            "canary" => &variables.canary,
            "service" => &variables.service,
            _ => return duration(variables.window),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !value.is_empty() && value.chars().all(plain) {
            Ok(value.clone())
        } else {
            Err(TemplateError::Value {
                name,
                value: value.clone(),
            })
        }
    })
}

/// Checks that a query would be PromQL that answers numbers, whatever stands in its placeholders.
///
/// # Errors
/// When a placeholder is not known, or the query is no PromQL, with the place of the fault; or when it answers
/// text or a range.
pub fn check(template: &str) -> Result<(), TemplateError> {
    // Each stand-in is as long as its placeholder, so that a place in the query is the same in the template.
    let query = fill(template, |name, len| {
        Ok(match name {
            "window" => format!("{:0>len$}", "1m"),
            _ => "a".repeat(len),
        })
    })?;
    tame(template, &query)?;
    let expr = parser::parse(&query).map_err(|why| fault(template, &query, why))?;
    match expr.value_type() {
        ValueType::Scalar | ValueType::Vector => Ok(()),
        ValueType::Matrix => Err(TemplateError::Type("range vector")),
        ValueType::String => Err(TemplateError::Type("string")),
    }
}

/// The largest number that a query may write: the parser takes any for a duration in seconds where one
/// may stand, and panics where that is more than a duration can be, or no number at all.
const LARGEST_NUMBER: f64 = 1e15;

/// Refuses numbers that the parser cannot survive. Strings and comments may hold anything.
fn tame(template: &str, query: &str) -> Result<(), TemplateError> {
    let mut chars = query.char_indices().peekable();
    // Whether a duration may come next: after `[`, `:` or `offset`, whatever sign or bracket is in between.
    let mut timed = false;
    while let Some((start, c)) = chars.next() {
        match c {
            '"' | '\'' | '`' => {
                while let Some((_, inner)) = chars.next().filter(|(_, inner)| *inner != c) {
                    if inner == '\\' && c != '`' {
                        chars.next();
                    }
                }
                timed = false;
            }
            '#' => while chars.next_if(|(_, inner)| *inner != '\n').is_some() {},
            '[' | ':' => timed = true,
            _ if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') => {
                let mut word = String::from(c);
                let mut last = c;
                while let Some((_, next)) = chars.next_if(|(_, next)| {
                    let exponent = c.is_ascii_digit() || c == '.';
                    next.is_ascii_alphanumeric()
                        || matches!(next, '.' | '_')
                        || (exponent && matches!(next, '+' | '-') && matches!(last, 'e' | 'E'))
                }) {
                    word.push(next);
                    last = next;
                }
                let plain = word.replace('_', "").to_ascii_lowercase();
                let number = match plain.strip_prefix("0x") {
                    Some(hex) => u64::from_str_radix(hex, 16).map(|n| n as f64).ok(),
                    None if c.is_ascii_digit() || c == '.' => plain.parse().ok(),
                    None => None,
                };
                let endless = timed && matches!(plain.as_str(), "inf" | "infinity" | "nan");
                let huge_hex = plain.starts_with("0x") && plain.len() > 16;
                if endless || huge_hex || number.is_some_and(|n: f64| n >= LARGEST_NUMBER) {
                    let why =
                        format!("{word} cannot stand here; numbers go up to {LARGEST_NUMBER:e}");
                    return Err(TemplateError::Syntax {
                        at: Position::of(template, start),
                        why: why.chars().take(200).collect(),
                    });
                }
                timed = plain == "offset";
            }
            _ if c.is_whitespace() || matches!(c, '+' | '-' | '(') => {}
            _ => timed = false,
        }
    }
    Ok(())
}

/// Replaces each placeholder by what `value` says of its name and its length in bytes.
fn fill(
    template: &str,
    value: impl Fn(&'static str, usize) -> Result<String, TemplateError>,
) -> Result<String, TemplateError> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{{") {
        let inner = &rest[start + 2..];
        let Some(end) = inner.find("}}") else {
            let byte = template.len() - rest.len() + start;
            return Err(TemplateError::Unclosed(Position::of(template, byte)));
        };
        let asked = inner[..end].trim();
        let name = PLACEHOLDERS
            .into_iter()
            .find(|name| *name == asked)
            .ok_or_else(|| TemplateError::Unknown(asked.chars().take(64).collect()))?;
        text.push_str(&rest[..start]);
        text.push_str(&value(name, end + 4)?);
        rest = &inner[end + 2..];
    }
    text.push_str(rest);
    Ok(text)
}

/// A duration in PromQL's words.
fn duration(window: TimeDelta) -> Result<String, TemplateError> {
    let millis = window.num_milliseconds();
    if millis <= 0 {
        return Err(TemplateError::Value {
            name: "window",
            value: window.to_string(),
        });
    }
    Ok(if millis % 1_000 == 0 {
        format!("{}s", millis / 1_000)
    } else {
        format!("{millis}ms")
    })
}

/// Finds the place of a fault, which the parser does not tell. A placeholder may have line ends in it, which
/// its stand-in has not, so lines are those of the template.
fn fault(template: &str, query: &str, why: String) -> TemplateError {
    let (byte, why) = if let Some(found) = unbalanced(query) {
        found
    } else if parser::lexer(query).is_err() {
        // The lexer reads from left to right and stops, so each text that is cut off behind the fault
        // fails in the same words, and none that is cut off before it does.
        let ends: Vec<usize> = query
            .char_indices()
            .map(|(i, c)| i + c.len_utf8())
            .collect();
        let fails = |end: &usize| parser::lexer(&query[..*end]).err().as_ref() == Some(&why);
        let first = ends.partition_point(|end| !fails(end));
        let last_read = ends.get(first.saturating_sub(1)).copied().unwrap_or(0);
        (if first == 0 { 0 } else { last_read }, why)
    } else {
        // The parser's own words for most faults are only that there is one.
        let why = match &*why {
            "invalid promql query" => "it cannot be understood from here on".into(),
            _ => why,
        };
        (understood(query), why)
    };
    TemplateError::Syntax {
        at: Position::of(template, byte),
        why,
    }
}

/// The end of the longest beginning of a query that is a query of its own.
fn understood(query: &str) -> usize {
    let boundary = |(i, c): (usize, char)| (!c.is_alphanumeric()).then_some(i);
    let mut ends: Vec<usize> = query.char_indices().filter_map(boundary).collect();
    ends.reverse();
    let end = ends
        .into_iter()
        .take(200)
        .find(|end| parser::parse(&query[..*end]).is_ok())
        .unwrap_or(0);
    let blanks = query[end..].len() - query[end..].trim_start().len();
    end + blanks
}

/// The first bracket or quote without its other half.
fn unbalanced(query: &str) -> Option<(usize, String)> {
    let mut open: Vec<(usize, char)> = Vec::new();
    let mut chars = query.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '#' => {
                chars.find(|(_, c)| *c == '\n');
            }
            '"' | '\'' | '`' => {
                let mut escaped = false;
                let end = chars.find(|(_, inner)| {
                    let ends = *inner == c && !escaped;
                    escaped = *inner == '\\' && !escaped && c != '`';
                    ends
                });
                if end.is_none() {
                    return Some((i, format!("the string that begins with {c} has no end")));
                }
            }
            '(' | '[' | '{' => open.push((i, c)),
            ')' | ']' | '}' => {
                let wanted = match c {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                match open.pop() {
                    Some((_, opened)) if opened == wanted => {}
                    _ => return Some((i, format!("there is no {wanted} for this {c}"))),
                }
            }
            _ => {}
        }
    }
    open.first()
        .map(|(i, c)| (*i, format!("this {c} is not closed")))
}
