//! What becomes of other people's edits during a release, and what a patch looks like.

#![allow(clippy::unwrap_used)]

mod traffic_routes;

use serde_json::{Value, json};
use serin::api::{Backend, RouteRecord, Wanted};
use serin::traffic::{TrafficError, plan, survey};
use traffic_routes::{backend, canary, frame, reference, route, rule, split, testers};

/// One release of `v2` in place of `v1`.
struct Release {
    stable: Backend,
    candidate: Backend,
    record: RouteRecord,
    route: Value,
}

impl Release {
    fn of(route: Value) -> Self {
        let (stable, candidate) = (backend("v1"), backend("v2"));
        let frame = frame(&[], &stable, &candidate);
        let record = survey(&route, &frame, &[testers(0), split(50)]).unwrap();
        Self {
            stable,
            candidate,
            record,
            route,
        }
    }

    fn want(&mut self, wanted: &Wanted) -> Result<bool, TrafficError> {
        let frame = frame(&[], &self.stable, &self.candidate);
        let change = plan(&self.route, &frame, &self.record, wanted)?;
        let changed = change.is_some();
        if let Some(change) = change {
            json_patch::patch(&mut self.route, &change.patch).unwrap();
        }
        assert!(
            plan(&self.route, &frame, &self.record, wanted)
                .unwrap()
                .is_none()
        );
        Ok(changed)
    }

    fn rules(&mut self) -> &mut Vec<Value> {
        self.route["spec"]["rules"].as_array_mut().unwrap()
    }

    fn refs(&mut self, rule: usize) -> &mut Vec<Value> {
        self.rules()[rule]["backendRefs"].as_array_mut().unwrap()
    }

    /// The references of a rule as `name:weight`.
    fn shares(&self, rule: usize) -> String {
        let refs = self.route["spec"]["rules"][rule]["backendRefs"]
            .as_array()
            .unwrap();
        let text = |r: &Value| format!("{}:{}", r["name"].as_str().unwrap(), r["weight"]);
        refs.iter().map(text).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn the_patch_of_a_step() {
    let mut main = rule("main", &[("v1", 1), ("blog", 3)]);
    main["timeouts"] = json!({"request": "10s"});
    main["backendRefs"][0]["filters"] = json!([{"type": "X"}]);
    let mut release = Release::of(route(&[main]));
    let release_frame = frame(&[], &release.stable, &release.candidate);
    let change = plan(&release.route, &release_frame, &release.record, &testers(5))
        .unwrap()
        .unwrap();
    let canary = |weight| json!({"filters": [{"type": "X"}], "group": "", "kind": "Service", "name": "v2", "port": 80, "weight": weight});
    assert_eq!(
        serde_json::to_value(&change.patch).unwrap(),
        json!([
            {"op": "test", "path": "/metadata/generation", "value": 1},
            {"op": "test", "path": "/metadata/uid", "value": "u1"},
            {"op": "test", "path": "/spec/rules/0/backendRefs/0/name", "value": "v1"},
            {"op": "test", "path": "/spec/rules/0/backendRefs/1/name", "value": "blog"},
            {"op": "test", "path": "/spec/rules/0/name", "value": "main"},
            {"op": "add", "path": "/spec/rules/0/backendRefs/0/weight", "value": 95},
            {"op": "add", "path": "/spec/rules/0/backendRefs/1/weight", "value": 300},
            {"op": "add", "path": "/spec/rules/0/backendRefs/-", "value": canary(5)},
            {"op": "add", "path": "/spec/rules/-", "value": {
                "name": "serin-web-0",
                "matches": [{
                    "path": {"type": "PathPrefix", "value": "/"},
                    "headers": [{"type": "Exact", "name": "x-canary", "value": "true"}],
                }],
                "timeouts": {"request": "10s"},
                "backendRefs": [canary(1)],
            }},
        ])
    );
    release.route = change.result;
    let release_frame = frame(&[], &release.stable, &release.candidate);
    let change = plan(
        &release.route,
        &release_frame,
        &release.record,
        &Wanted::Candidate,
    )
    .unwrap()
    .unwrap();
    assert_eq!(
        serde_json::to_value(&change.patch).unwrap(),
        json!([
            {"op": "test", "path": "/metadata/generation", "value": 1},
            {"op": "test", "path": "/metadata/uid", "value": "u1"},
            {"op": "test", "path": "/spec/rules/0/backendRefs/0/name", "value": "v1"},
            {"op": "test", "path": "/spec/rules/0/backendRefs/1/name", "value": "blog"},
            {"op": "test", "path": "/spec/rules/0/backendRefs/2/name", "value": "v2"},
            {"op": "test", "path": "/spec/rules/0/name", "value": "main"},
            {"op": "test", "path": "/spec/rules/1/name", "value": "serin-web-0"},
            {"op": "add", "path": "/spec/rules/0/backendRefs/0/name", "value": "v2"},
            {"op": "add", "path": "/spec/rules/0/backendRefs/0/weight", "value": 1},
            {"op": "add", "path": "/spec/rules/0/backendRefs/1/weight", "value": 3},
            {"op": "remove", "path": "/spec/rules/0/backendRefs/2"},
            {"op": "remove", "path": "/spec/rules/1"},
        ])
    );
}

#[test]
fn factors_are_as_small_as_can_be() {
    for (weight, factor) in [
        (1, 100),
        (2, 50),
        (50, 2),
        (90, 10),
        (100, 1),
        (300, 1),
        (37, 100),
    ] {
        let release = Release::of(route(&[rule("", &[("v1", weight), ("x", 1)])]));
        assert_eq!(release.record.rules[0].factor, factor, "{weight}");
    }
}

#[test]
fn a_foreign_weight_that_is_changed_in_the_split_stays() {
    let mut release = Release::of(route(&[rule("", &[("v1", 50), ("x", 50)])]));
    release.want(&split(10)).unwrap();
    assert_eq!(release.shares(0), "v1:90 x:100 v2:10");
    release.refs(0)[1]["weight"] = json!(200);
    assert!(!release.want(&split(10)).unwrap());
    release.want(&split(20)).unwrap();
    assert_eq!(release.shares(0), "v1:80 x:200 v2:20");
    release.want(&Wanted::Stable).unwrap();
    assert_eq!(release.shares(0), "v1:50 x:100");
}

#[test]
fn a_foreign_weight_without_a_whole_counterpart_keeps_its_share() {
    let mut release = Release::of(route(&[rule("", &[("v1", 50), ("x", 50)])]));
    release.want(&split(10)).unwrap();
    release.refs(0)[1]["weight"] = json!(33);
    release.refs(0).push(reference("y", 7));
    release.want(&Wanted::Stable).unwrap();
    assert_eq!(release.shares(0), "v1:100 x:33 y:7");
    release.want(&split(10)).unwrap();
    assert_eq!(release.shares(0), "v1:90 x:33 y:7 v2:10");
    release.want(&Wanted::Candidate).unwrap();
    assert_eq!(release.shares(0), "v2:100 x:33 y:7");
}

#[test]
fn a_backend_that_is_added_in_the_scale_of_the_rule_as_it_was_is_scaled() {
    let mut release = Release::of(route(&[rule("", &[("v1", 1), ("x", 1)])]));
    release.want(&split(10)).unwrap();
    // Somebody's tool applies its own copy, which has a new backend by now.
    release.rules()[0] = rule("", &[("y", 2), ("x", 1), ("v1", 1)]);
    release.want(&split(10)).unwrap();
    assert_eq!(release.shares(0), "y:200 x:100 v1:90 v2:10");
    release.want(&Wanted::Stable).unwrap();
    assert_eq!(release.shares(0), "y:2 x:1 v1:1");
}

#[test]
fn our_weights_are_put_back_whoever_changed_them() {
    let found = rule("", &[("v1", 1), ("x", 2)]);
    let edits: [fn(&mut Vec<Value>); 6] = [
        |refs| refs[0]["weight"] = json!(1),
        |refs| refs[2]["weight"] = json!(0),
        |refs| refs[2]["weight"] = json!(90),
        |refs| drop(refs.remove(2)),
        |refs| drop(refs.remove(0)),
        |refs| refs.push(reference("v2", 3)),
    ];
    for (k, edit) in edits.into_iter().enumerate() {
        let mut release = Release::of(route(std::slice::from_ref(&found)));
        release.want(&split(10)).unwrap();
        edit(release.refs(0));
        let mut back = Release { ..release };
        let edited = back.route.clone();
        assert!(back.want(&split(10)).unwrap(), "edit {k}");
        let mut shares: Vec<String> = back.shares(0).split(' ').map(str::to_owned).collect();
        shares.sort();
        assert_eq!(shares, ["v1:90", "v2:10", "x:200"], "edit {k}");
        back.route = edited;
        back.want(&Wanted::Stable).unwrap();
        let mut shares: Vec<String> = back.shares(0).split(' ').map(str::to_owned).collect();
        shares.sort();
        assert_eq!(shares, ["v1:1", "x:2"], "edit {k}");
    }
}

#[test]
fn edits_of_anything_else_are_kept() {
    let mut release = Release::of(route(&[
        rule("a", &[("v1", 1)]),
        rule("b", &[("v1", 5), ("x", 5)]),
    ]));
    release.want(&testers(10)).unwrap();
    assert_eq!(release.rules().len(), 4);
    // A rule in front, one at the end, one renamed and edited, another host.
    release.rules().insert(0, rule("new", &[("z", 1)]));
    release.rules().push(rule("last", &[("z", 1)]));
    release.rules()[1]["timeouts"] = json!({"request": "3s"});
    release.rules()[2]["name"] = json!("renamed");
    release.rules()[2]["matches"] = json!([{"path": {"type": "Exact", "value": "/b"}}]);
    release.route["spec"]["hostnames"] = json!(["b.example"]);
    release.want(&testers(20)).unwrap();
    assert_eq!(release.shares(1), "v1:80 v2:20");
    assert_eq!(release.shares(2), "v1:80 x:100 v2:20");
    // Copies follow their rules.
    assert_eq!(release.rules()[3]["timeouts"], json!({"request": "3s"}));
    assert_eq!(release.rules()[4]["matches"][0]["path"]["value"], "/b");
    release.want(&Wanted::Stable).unwrap();
    let mut a = rule("a", &[("v1", 1)]);
    a["timeouts"] = json!({"request": "3s"});
    let mut b = rule("renamed", &[("v1", 5), ("x", 5)]);
    b["matches"] = json!([{"path": {"type": "Exact", "value": "/b"}}]);
    let mut expected = route(&[rule("new", &[("z", 1)]), a, b, rule("last", &[("z", 1)])]);
    expected["spec"]["hostnames"] = json!(["b.example"]);
    assert_eq!(release.route, expected);
}

#[test]
fn rules_without_names_are_found_where_they_went() {
    let mut release = Release::of(route(&[
        rule("", &[("v1", 1)]),
        rule("", &[("v1", 4), ("x", 6)]),
    ]));
    release.want(&split(50)).unwrap();
    release.rules().insert(0, rule("", &[("z", 1)]));
    release.want(&split(25)).unwrap();
    assert_eq!(release.shares(1), "v1:75 v2:25");
    assert_eq!(release.shares(2), "v1:75 x:150 v2:25");
    release.rules().swap(1, 2);
    release.want(&Wanted::Stable).unwrap();
    assert_eq!(release.shares(1), "v1:4 x:6");
    assert_eq!(release.shares(2), "v1:1");
}

#[test]
fn a_rule_without_a_name_is_known_by_its_backends_alone() {
    let (a, b) = (&[("v1", 1)], &[("v1", 4), ("x", 6)]);
    let mut release = Release::of(route(&[rule("", a), rule("", b)]));
    release.want(&split(50)).unwrap();
    let z = || rule("", &[("z", 1)]);
    let half = |release: &mut Release, at: usize| release.rules()[at].clone();
    let (a, b) = (half(&mut release, 0), half(&mut release, 1));
    *release.rules() = vec![z(), z(), b, a];
    release.want(&split(25)).unwrap();
    assert_eq!(release.shares(2), "v1:75 x:150 v2:25");
    assert_eq!(release.shares(3), "v1:75 v2:25");
    release.want(&Wanted::Stable).unwrap();
    assert_eq!(release.shares(2), "v1:4 x:6");
    assert_eq!(release.shares(3), "v1:1");
}

#[test]
fn a_rule_of_other_people_for_the_same_header_is_kept() {
    let mut release = Release::of(route(&[rule("main", &[("v1", 1)])]));
    release.want(&testers(0)).unwrap();
    let mut theirs = rule("", &[("v2", 1)]);
    theirs["matches"][0]["headers"] = json!([{"name": "x-canary", "value": "true"}]);
    release.rules().push(theirs.clone());
    release.want(&testers(5)).unwrap();
    release.want(&Wanted::Stable).unwrap();
    assert_eq!(release.route, route(&[rule("main", &[("v1", 1)]), theirs]));
}

#[test]
fn a_rule_that_was_removed_stays_removed() {
    let mut release = Release::of(route(&[rule("a", &[("v1", 1)]), rule("b", &[("v1", 1)])]));
    release.want(&testers(10)).unwrap();
    release.rules().remove(0);
    release.want(&testers(20)).unwrap();
    assert_eq!(release.rules().len(), 2);
    assert_eq!(release.rules()[1]["name"], "serin-web-1");
    release.rules().remove(0);
    let gone = release.want(&testers(30)).unwrap_err();
    assert_eq!(gone.reason(), "RulesGone");
    release.want(&Wanted::Stable).unwrap();
    assert!(release.rules().is_empty());
}

#[test]
fn header_rules_are_healed_and_no_others_touched() {
    let other = rule("serin-web-x", &[("v2", 1)]);
    let mut release = Release::of(route(&[rule("", &[("v1", 1)]), other.clone()]));
    release.want(&testers(0)).unwrap();
    let whole = release.route.clone();
    release.rules().pop();
    assert!(release.want(&testers(0)).unwrap());
    assert_eq!(release.route, whole);
    release.rules()[2]["backendRefs"] = json!([reference("v1", 1)]);
    assert!(release.want(&testers(0)).unwrap());
    assert_eq!(release.route, whole);
    release.want(&Wanted::Stable).unwrap();
    assert_eq!(release.rules().len(), 2);
    assert_eq!(release.rules()[1], other);
}

#[test]
fn a_filter_that_replaces_a_prefix_has_one_match_a_rule() {
    let mut main = rule("", &[("v1", 1)]);
    main["filters"] = json!([{"type": "URLRewrite", "urlRewrite":
        {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}]);
    let mut release = Release::of(route(&[main]));
    let found = release.route.clone();
    let headers = vec![canary("x-canary"), canary("x-team")];
    release.want(&Wanted::Split { weight: 0, headers }).unwrap();
    let names: Vec<&Value> = release.route["spec"]["rules"].as_array().unwrap()[1..]
        .iter()
        .map(|rule| &rule["name"])
        .collect();
    assert_eq!(names, ["serin-web-0", "serin-web-0.1"]);
    release.want(&testers(0)).unwrap();
    assert_eq!(release.rules().len(), 2);
    release.want(&Wanted::Stable).unwrap();
    assert_eq!(release.route, found);
}

#[test]
fn a_route_that_was_made_anew_is_not_touched() {
    let mut release = Release::of(route(&[rule("", &[("v1", 1)])]));
    release.route["metadata"]["uid"] = json!("u2");
    for wanted in [Wanted::Stable, split(5), Wanted::Candidate] {
        assert_eq!(release.want(&wanted).unwrap_err().reason(), "RouteRemade");
    }
}

#[test]
fn what_a_lost_record_left_is_taken_over() {
    let mut left = rule("serin-web-0", &[("v2", 1)]);
    left["matches"][0]["headers"] = json!([{"type": "Exact", "name": "old", "value": "1"}]);
    let mut release = Release::of(route(&[rule("", &[("v1", 1)]), left]));
    release.want(&testers(0)).unwrap();
    assert_eq!(release.rules().len(), 2);
    assert_eq!(
        release.rules()[1]["matches"][0]["headers"][0]["name"],
        "x-canary"
    );
    release.want(&Wanted::Stable).unwrap();
    assert_eq!(release.route, route(&[rule("", &[("v1", 1)])]));
}
