//! AlertProviders and Secrets as the cluster has them.

use crate::support::{PLANT, Receiver, Reply, captured};
use serde_json::json;
use serin::alerts::{Cluster, Directory};

async fn cluster(replies: impl IntoIterator<Item = Reply>) -> (Receiver, Cluster) {
    captured();
    let api = Receiver::start(replies).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("http://127.0.0.1:{}/", api.port).parse().unwrap();
    let client = kube::Client::try_from(kube::Config::new(url)).unwrap();
    (api, Cluster::new(client))
}

fn status(code: u16, reason: &str) -> Reply {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code,
    });
    Reply::Json(code, status.to_string())
}

#[tokio::test]
async fn objects_are_read_by_name_in_their_own_namespace() {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "oncall"},
        "data": {"url": "aHR0cHM6Ly9ob29rcy5leGFtcGxlLw=="},
    });
    let provider = json!({
        "apiVersion": "serin.dev/v1alpha1", "kind": "AlertProvider", "metadata": {"name": "oncall"},
        "spec": {"webhook": {"urlFrom": {"name": "oncall", "key": "url"}}},
    });
    let replies = [
        Reply::Json(200, secret.to_string()),
        Reply::Json(200, provider.to_string()),
    ];
    let (api, cluster) = cluster(replies).await;
    let data = cluster.secret("shop", "oncall").await.unwrap().unwrap();
    assert_eq!(data["url"].expose(), b"https://hooks.example/");
    assert_eq!(format!("{data:?}"), r#"{"url": <redacted>}"#);
    let spec = cluster.provider("shop", "oncall").await.unwrap().unwrap();
    assert_eq!(spec.webhook.unwrap().url_from.key, "url");
    let paths: Vec<_> = api.received().into_iter().map(|r| r.path).collect();
    assert!(
        paths[0].starts_with("/api/v1/namespaces/shop/secrets/oncall"),
        "{paths:?}"
    );
    assert!(
        paths[1].starts_with("/apis/serin.dev/v1alpha1/namespaces/shop/alertproviders/oncall"),
        "{paths:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_said_without_what_it_holds() {
    let bad = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {"url": PLANT}});
    let replies = [
        status(404, "NotFound"),
        status(403, "Forbidden"),
        status(500, "InternalError"),
        Reply::Json(200, bad.to_string()),
        Reply::Json(200, PLANT.to_owned()),
    ];
    let (_api, cluster) = cluster(replies).await;
    let mut said = Vec::new();
    for _ in 0..5 {
        said.push(match cluster.secret("shop", "oncall").await {
            Ok(found) => format!("found: {}", found.is_some()),
            Err(error) => error.to_string(),
        });
    }
    assert_eq!(
        said,
        [
            "found: false",
            "the operator's ServiceAccount may not read it",
            "the API server answered 500",
            "the API server's answer cannot be read",
            "the API server's answer cannot be read",
        ]
    );
    let odd = cluster.secret("shop", "../../nodes").await;
    assert!(odd.is_err() || odd.unwrap().is_none());
}
