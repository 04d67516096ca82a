//! The chart as the real `helm` renders it. What an API server says of it is in `e2e/chart.rs`.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use clap::Parser;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use testbed::{Helm, documents};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    root().join("charts/serin")
}

fn yaml(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    serde_norway::from_str(&text).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// The value sets of `ci/`, by name.
fn value_sets() -> Vec<(String, Value)> {
    let mut sets: Vec<_> = fs::read_dir(chart().join("ci"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                yaml(&path),
            )
        })
        .collect();
    sets.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(sets.len() >= 5, "{sets:?}");
    sets
}

async fn helm() -> Helm {
    Helm::of(&chart()).await.unwrap()
}

async fn rendered(values: &Value) -> Vec<Value> {
    let text = helm().await.template("serin", "serin-system", values).await;
    documents(&text.unwrap()).unwrap()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

#[tokio::test]
async fn lint_finds_nothing() {
    let helm = helm().await;
    for (name, values) in value_sets() {
        let said = helm.lint(&values).await;
        assert!(said.is_ok(), "{name}: {said:?}");
    }
}

#[tokio::test]
async fn bad_values_are_refused_with_a_sentence() {
    let cases = [
        (
            json!({"replica": 3}),
            "additional properties 'replica' not allowed",
        ),
        (
            json!({"image": {"tg": "1"}}),
            "at '/image': additional properties 'tg' not allowed",
        ),
        (
            json!({"image": {"tag": "a b"}}),
            "at '/image/tag': 'a b' does not match pattern",
        ),
        (
            json!({"image": {"digest": "sha256:12"}}),
            "at '/image/digest'",
        ),
        (
            json!({"image": {"pullPolicy": "Sometimes"}}),
            "must be one of 'Always', 'IfNotPresent', 'Never'",
        ),
        (
            json!({"replicas": "two"}),
            "at '/replicas': got string, want integer",
        ),
        (
            json!({"replicas": -1}),
            "at '/replicas': minimum: got -1, want 0",
        ),
        (
            json!({"leaderElection": {"enabled": false}}),
            "replicas is 2 and leaderElection.enabled is false: the operators would write over each other",
        ),
        (
            json!({"leaderElection": false}),
            "at '/leaderElection': got boolean, want object",
        ),
        (
            json!({"prometheus": {"url": "prometheus:9090"}}),
            "at '/prometheus/url': 'prometheus:9090' does not match",
        ),
        (
            json!({"prometheus": {"url": "http://p/?x=1"}}),
            "at '/prometheus/url'",
        ),
        (
            json!({"prometheus": {"queryTimeout": 5}}),
            "at '/prometheus/queryTimeout': got number, want string",
        ),
        (
            json!({"prometheus": {"urlFrom": {"name": "p"}}}),
            "properties 'key' required",
        ),
        (
            json!({"prometheus": {"url": "http://p", "urlFrom": {"name": "p", "key": "k"}}}),
            "prometheus.url and prometheus.urlFrom are both set",
        ),
        (
            json!({"allowEgress": "hooks.example.com"}),
            "at '/allowEgress': got string, want array",
        ),
        (
            json!({"allowEgress": ["https://hooks.example.com/x"]}),
            "at '/allowEgress/0': 'https://hooks.example.com/x' does not match",
        ),
        (
            json!({"allowEgress": ["a.example,b.example"]}),
            "at '/allowEgress/0'",
        ),
        // An empty list of names would be a right to all Secrets of the namespace.
        (
            json!({"alerts": {"secrets": [{"namespace": "shop", "names": []}]}}),
            "at '/alerts/secrets/0/names': minItems: got 0, want 1",
        ),
        (
            json!({"alerts": {"secrets": [{"namespace": "shop"}]}}),
            "missing property 'names'",
        ),
        (
            json!({"alerts": {"secrets": [{"namespace": "shop", "names": ["*"]}]}}),
            "at '/alerts/secrets/0/names/0': '*' does not match",
        ),
        (
            json!({"alerts": {"secrets": [{"namespace": "*", "names": ["a"]}]}}),
            "at '/alerts/secrets/0/namespace': '*' does not match",
        ),
        (
            json!({"alerts": {"secrets": [{"namespace": "shop", "names": ["a"]}, {"namespace": "shop", "names": ["b"]}]}}),
            "alerts.secrets has two entries for the namespace shop",
        ),
        (
            json!({"settle": "soon"}),
            "at '/settle': 'soon' does not match",
        ),
        (
            json!({"log": {"format": "xml"}}),
            "at '/log/format': value must be one of 'json', 'pretty'",
        ),
        (
            json!({"extraArgs": ["listen"]}),
            "at '/extraArgs/0': 'listen' does not match",
        ),
        (
            json!({"serviceAccount": {"create": false}}),
            "serviceAccount.name must say which one there is",
        ),
        (
            json!({"service": {"port": 0}}),
            "at '/service/port': minimum: got 0, want 1",
        ),
        (
            json!({"resources": {"request": {}}}),
            "additional properties 'request' not allowed",
        ),
        (
            json!({"nodeSelector": {"gpu": true}}),
            "at '/nodeSelector/gpu': got boolean, want string",
        ),
        (
            json!({"affinity": {"podAfinity": {}}}),
            "additional properties 'podAfinity' not allowed",
        ),
    ];
    let helm = helm().await;
    for (values, sentence) in cases {
        match helm.template("serin", "serin-system", &values).await {
            Ok(_) => panic!("{values} was taken"),
            Err(err) => assert!(
                err.to_string().contains(sentence),
                "{values}: expected {sentence:?}, helm said: {err}"
            ),
        }
    }
}

/// Without a program to explain it, a value that is in one place only is a trap.
#[test]
fn every_value_is_shown_and_has_a_schema() {
    fn compare(path: &str, values: &Value, schema: &Value) {
        let (Some(values), Some(known)) = (values.as_object(), schema["properties"].as_object())
        else {
            return;
        };
        if values.is_empty() {
            return;
        }
        assert_eq!(
            schema["additionalProperties"], false,
            "{path} takes any name"
        );
        for (name, value) in values {
            assert!(known.contains_key(name), "{path}/{name} has no schema");
            compare(&format!("{path}/{name}"), value, &known[name]);
        }
        let optional = ["/global", "/resources/claims"];
        for name in known.keys().map(|name| format!("{path}/{name}")) {
            let last = name.rsplit('/').next().unwrap();
            assert!(
                values.contains_key(last) || optional.contains(&&*name),
                "{name} is not in values.yaml"
            );
        }
    }
    let schema = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    compare("", &yaml(&chart().join("values.yaml")), &schema);
}

#[tokio::test]
async fn the_operator_takes_the_arguments() {
    for (name, values) in value_sets() {
        let objects = rendered(&values).await;
        let [deployment] = of_kind(&objects, "Deployment")[..] else {
            panic!("{name}: not one Deployment")
        };
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let mut args: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
        args.insert(0, "serin".into());
        let parsed = serin::cli::Cli::try_parse_from(&args);
        assert!(parsed.is_ok(), "{name}: {args:?}: {}", parsed.unwrap_err());
    }
}

#[tokio::test]
async fn only_listed_secrets_are_in_the_rights() {
    let secrets = |objects: &[Value]| {
        let mut found = BTreeSet::new();
        for role in [of_kind(objects, "Role"), of_kind(objects, "ClusterRole")].concat() {
            for rule in role["rules"].as_array().unwrap() {
                if rule["resources"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|r| r == "secrets" || r == "*")
                {
                    assert_eq!(rule["verbs"], json!(["get"]), "{role}");
                    let namespace = role["metadata"]["namespace"].as_str().unwrap();
                    for name in rule["resourceNames"].as_array().unwrap() {
                        found.insert(format!("{namespace}/{}", name.as_str().unwrap()));
                    }
                }
            }
        }
        found
    };
    assert_eq!(secrets(&rendered(&json!({})).await), BTreeSet::new());
    let listed = yaml(&chart().join("ci/alerts-values.yaml"));
    let expected = ["7/1", "7/on", "checkout/oncall", "checkout/oncall.backup"];
    assert_eq!(
        secrets(&rendered(&listed).await),
        expected.map(String::from).into()
    );
}

/// A right that is not used is not given.
#[tokio::test]
async fn without_election_there_is_no_right_to_leases() {
    let single = yaml(&chart().join("ci/single-values.yaml"));
    let objects = rendered(&single).await;
    assert!(of_kind(&objects, "Role").is_empty());
    assert!(!serde_json::to_string(&objects).unwrap().contains("lease"));
    assert_eq!(
        of_kind(&objects, "Deployment")[0]["spec"]["strategy"],
        json!({"type": "Recreate"})
    );
}

#[tokio::test]
async fn definitions_are_upgraded_with_the_release_and_outlive_it() {
    let objects = rendered(&json!({})).await;
    let rendered_crds = of_kind(&objects, "CustomResourceDefinition");
    let definitions = serin::cli::crds::definitions().unwrap();
    assert_eq!(rendered_crds.len(), definitions.len());
    for (name, text) in definitions {
        let mut expected: Value = serde_norway::from_str(&text).unwrap();
        expected["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
        assert!(
            rendered_crds.contains(&&expected),
            "{name} is rendered otherwise"
        );
    }
}

#[test]
fn the_versions_are_the_package_s() {
    let about = yaml(&chart().join("Chart.yaml"));
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(about["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn the_notes_say_what_is_missing() {
    let helm = helm().await;
    let notes = async |values: Value| helm.notes("serin", "serin-system", &values).await.unwrap();
    let bare = notes(json!({"crds": {"install": false}})).await;
    for said in [
        "No Prometheus is set",
        "It may read no Secret",
        "definitions are not part",
    ] {
        assert!(bare.contains(said), "{said:?} is not in: {bare}");
    }
    let full = notes(yaml(&chart().join("ci/alerts-values.yaml"))).await;
    assert!(full.contains("checkout: oncall, oncall.backup"), "{full}");
    for said in ["No Prometheus", "no Secret", "not part"] {
        assert!(!full.contains(said), "{said:?} is in: {full}");
    }
}

/// `deploy/install.yaml` is for those without helm, and for the playground, which need not build it.
#[tokio::test]
async fn install_yaml_is_what_helm_renders() {
    let values = json!({"crds": {"install": false}});
    let text = helm()
        .await
        .template("serin", "serin-system", &values)
        .await
        .unwrap();
    let expected = format!("{INSTALL_HEAD}{text}");
    let path = root().join("deploy/install.yaml");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&path).unwrap_or_default(),
        expected,
        "deploy/install.yaml is old; write it anew with: UPDATE_EXPECT=1 cargo test --test chart install_yaml"
    );
}

const INSTALL_HEAD: &str = "\
# The operator without helm: kubectl apply --server-side -f crds/ -f deploy/install.yaml
#
# Rendered from charts/serin, so edit that. All below the Namespace is the output of
#   helm template serin charts/serin --namespace serin-system --set crds.install=false
# and `UPDATE_EXPECT=1 cargo test --test chart install_yaml` writes it anew.
apiVersion: v1
kind: Namespace
metadata:
  name: serin-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
";
