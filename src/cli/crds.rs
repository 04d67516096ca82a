//! `serin crds`: the custom resource definitions, as they are in `crds/`.

use crate::api::{AlertProvider, Canary};
use anyhow::Context;
use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct CrdsArgs {
    /// Write one file for each kind into this folder instead of printing.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// The definitions of all our kinds, with the names of their files.
///
/// # Errors
/// When a definition cannot be put as YAML.
pub fn definitions() -> anyhow::Result<Vec<(String, String)>> {
    [Canary::crd(), AlertProvider::crd()]
        .iter()
        .map(|crd: &CustomResourceDefinition| {
            let name = format!("{}.yaml", crd.spec.names.plural);
            let text = yaml(crd).with_context(|| format!("cannot write {name}"))?;
            Ok((name, text))
        })
        .collect()
}

/// YAML that means the same to readers of YAML 1.1, as kubectl and helm are: there a bare `on` is true.
fn yaml(value: &impl Serialize) -> anyhow::Result<String> {
    let plain = serde_norway::to_string(value)?;
    let text: String = plain.lines().map(|line| quoted(line) + "\n").collect();
    let read = |text: &str| serde_norway::from_str::<serde_norway::Value>(text);
    // A line of a text block that looks like a key or an entry would come out changed.
    anyhow::ensure!(
        read(&text)? == read(&plain)?,
        "quoting the words that YAML 1.1 reads as booleans has changed the meaning"
    );
    Ok(text)
}

/// A line with those of its scalars in quotes that YAML 1.1 reads as booleans.
fn quoted(line: &str) -> String {
    let is_boolean = |word: &str| {
        let word = word.to_ascii_lowercase();
        matches!(&*word, "y" | "n" | "yes" | "no" | "on" | "off")
    };
    let scalar = line.trim_start_matches([' ', '-']);
    let indent = &line[..line.len() - scalar.len()];
    let quote = |word: &str| {
        if is_boolean(word) {
            format!("'{word}'")
        } else {
            word.to_owned()
        }
    };
    match scalar.split_once(':') {
        Some((key, "")) => format!("{indent}{}:", quote(key)),
        Some((key, rest)) => match rest.strip_prefix(' ') {
            Some(value) => format!("{indent}{}: {}", quote(key), quote(value)),
            None => line.to_owned(),
        },
        None => format!("{indent}{}", quote(scalar)),
    }
}

pub fn run(args: &CrdsArgs) -> anyhow::Result<()> {
    for (name, text) in definitions()? {
        match &args.dir {
            Some(dir) => {
                let path = dir.join(name);
                std::fs::write(&path, text)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            None => println!("---\n{}", text.trim_end()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_of_yaml_1_1_are_quoted() {
        let value = json!({
            "on": {"y": "no"},
            "required": ["name", "on", "Off"],
            "text": "on: off, and - no",
            "time": "12:yes",
            "one": "- on",
        });
        let expected = "\
'on':
  'y': 'no'
one: '- on'
required:
- name
- 'on'
- 'Off'
text: 'on: off, and - no'
time: 12:yes
";
        assert_eq!(yaml(&value).unwrap(), expected);
    }

    #[test]
    fn a_text_that_would_change_is_an_error() {
        let value = json!({"text": "one\non: two\n"});
        assert!(yaml(&value).is_err());
    }
}
