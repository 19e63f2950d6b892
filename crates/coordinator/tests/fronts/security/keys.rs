//! API keys over HTTP and gRPC.

use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use windlass_client::{ClientError, GenerateRequest};
use windlass_proto::v1::cluster_client::ClusterClient;
use windlass_proto::v1::{DrainWorkerRequest, ListWorkersRequest};

use super::{KeyFile, client, entry, front, front_with_keys, post};
use crate::support::{FakeWorker, Front, Script, eventually};

async fn status(front: &Front, path: &str, authorization: Option<&str>) -> u16 {
    let request = reqwest::Client::new().get(format!("{}{path}", front.http));
    let request = match authorization {
        Some(value) => request.header(AUTHORIZATION, value),
        None => request,
    };
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn http_asks_for_a_key_except_where_the_server_is_watched() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = front_with_keys(&worker, &KeyFile::with("http", "")).await;
    for path in ["/v1/models", "/v1/models/demo", "/tokenizer_info"] {
        assert_eq!(status(&front, path, None).await, 401, "{path}");
        for wrong in ["Bearer wl-other", "Bearer wl-htt", "wl-http", "Basic wl-http", "Bearer "] {
            assert_eq!(status(&front, path, Some(wrong)).await, 401, "{path} {wrong}");
        }
        assert_eq!(status(&front, path, Some("Bearer wl-http")).await, 200, "{path}");
    }
    for path in ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"] {
        assert_eq!(post(&front, "wl-other", path, &json!({})).await.status(), 401, "{path}");
    }
    for path in ["/live", "/ready", "/health", "/metrics"] {
        assert_eq!(status(&front, path, None).await, 200, "{path}");
    }
    let answer = post(&front, "wl-http", "/v1/completions", &json!({"prompt": "1"})).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_request_without_a_key_is_told_what_to_send_as_openai_clients_expect_it() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = front_with_keys(&worker, &KeyFile::with("shape", "")).await;
    let response = front.send("/v1/completions", &json!({"prompt": "1"})).await;
    assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
    let body: Value = response.json().await.unwrap();
    let error = json!({
        "message": "an API key is required: send it as 'Authorization: Bearer KEY'",
        "type": "invalid_request_error", "param": null, "code": "invalid_api_key",
    });
    assert_eq!(body["error"], error);
    assert!(worker.requests().is_empty());
}

#[tokio::test]
async fn grpc_asks_for_a_key_except_for_health() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = front_with_keys(&worker, &KeyFile::with("grpc", "")).await;
    for key in [None, Some("wl-other")] {
        let refused = client(&front, key).await.generate_whole(GenerateRequest::text("1")).await;
        assert!(matches!(refused, Err(ClientError::Unauthenticated { .. })), "{refused:?}");
    }
    let known = client(&front, Some("wl-grpc")).await;
    assert_eq!(known.generate_whole(GenerateRequest::text("1")).await.unwrap().text, "4");
    let request = HealthCheckRequest { service: String::new() };
    HealthClient::new(channel(&front)).check(request).await.unwrap();
}

fn channel(front: &Front) -> Channel {
    Endpoint::from_shared(format!("http://{}", front.grpc)).unwrap().connect_lazy()
}

/// A client of `Cluster` with this key.
fn cluster(
    front: &Front,
    key: &str,
) -> ClusterClient<
    InterceptedService<Channel, impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone + use<>>,
> {
    let value: MetadataValue<_> = format!("Bearer {key}").parse().unwrap();
    ClusterClient::with_interceptor(channel(front), move |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", value.clone());
        Ok(request)
    })
}

#[tokio::test]
async fn only_an_admins_key_drains_workers() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let keys = KeyFile::with("user", "");
    keys.write(&(entry("user", false) + &entry("operator", true)));
    let front = front_with_keys(&worker, &keys).await;
    let drain = || DrainWorkerRequest { id: "nobody".into(), deadline_ms: None };
    let refused = cluster(&front, "wl-user").drain_worker(drain()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let unknown = cluster(&front, "wl-other").list_workers(ListWorkersRequest {}).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unauthenticated);
    let operator = cluster(&front, "wl-operator").drain_worker(drain()).await.unwrap_err();
    assert!(!matches!(operator.code(), Code::PermissionDenied | Code::Unauthenticated), "{operator}");
}

#[tokio::test]
async fn keys_of_the_settings_work_without_a_file() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let hex = entry("setting", false).split('"').nth(3).unwrap().to_owned();
    let front = front(&worker, |config| config.api_keys = vec![format!("setting:{hex}")]).await;
    assert_eq!(status(&front, "/v1/models", None).await, 401);
    assert_eq!(status(&front, "/v1/models", Some("Bearer wl-setting")).await, 200);
}

#[tokio::test]
async fn a_changed_file_is_taken_over_and_a_broken_one_is_not() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let keys = KeyFile::with("old", "");
    let front = front_with_keys(&worker, &keys).await;
    let is_known =
        async |key: &str| status(&front, "/v1/models", Some(&format!("Bearer {key}"))).await == 200;
    assert!(is_known("wl-old").await && !is_known("wl-new").await);
    keys.write(&(entry("old", false) + &entry("new", false)));
    eventually(|| is_known("wl-new")).await;
    keys.write("[[key]]\nname = 'new'");
    // What follows can only be seen once the broken text was.
    keys.write(&entry("new", false));
    eventually(|| async { !is_known("wl-old").await }).await;
    assert!(is_known("wl-new").await);
}
