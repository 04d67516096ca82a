//! What the API server checks of an object before it takes it, as far as the tests need it.

use crate::store::Refusal;
use serde_json::Value;
use serin::api::CanarySpec;

pub fn check(plural: &str, object: &Value) -> Result<(), Refusal> {
    match plural {
        "canaries" => canary(object),
        "httproutes" => route(object),
        _ => Ok(()),
    }
}

fn canary(object: &Value) -> Result<(), Refusal> {
    let spec: CanarySpec = serde_json::from_value(object["spec"].clone())
        .map_err(|err| Refusal::field("spec", err.to_string()))?;
    if spec.routes.is_empty() {
        return Err(Refusal::field("spec.routes", "must have at least 1 item"));
    }
    for (index, step) in spec.steps.iter().enumerate() {
        if step.weight.is_some_and(|weight| weight > 100) {
            let field = format!("spec.steps[{index}].weight");
            return Err(Refusal::field(&field, "must be at most 100"));
        }
    }
    Ok(())
}

fn route(object: &Value) -> Result<(), Refusal> {
    let empty = Vec::new();
    let list = |value: &Value| value.as_array().unwrap_or(&empty).clone();
    let rules = list(&object["spec"]["rules"]);
    if rules.len() > 16 {
        return Err(Refusal::field("spec.rules", "must have at most 16 items"));
    }
    for (at, rule) in rules.iter().enumerate() {
        let refs = list(&rule["backendRefs"]);
        let field = format!("spec.rules[{at}].backendRefs");
        if refs.len() > 16 {
            return Err(Refusal::field(&field, "must have at most 16 items"));
        }
        for (n, reference) in refs.iter().enumerate() {
            let weight = reference.get("weight").map_or(Some(1), Value::as_i64);
            if !weight.is_some_and(|weight| (0..=1_000_000).contains(&weight)) {
                let field = format!("{field}[{n}].weight");
                return Err(Refusal::field(&field, "must be from 0 to 1000000"));
            }
            if reference["name"].as_str().is_none_or(str::is_empty) {
                return Err(Refusal::field(&format!("{field}[{n}].name"), "is required"));
            }
        }
    }
    Ok(())
}
