//! The gRPC front, through the typed client.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::{FakeWorker, Front, Script, eventually};
use futures::StreamExt;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::{ErrorDetails, StatusExt};
use windlass_client::{
    Client, ClientError, Depth, Event, FinishReason, GenerateOptions, GenerateRequest, Kv, Message, Prompt,
};
use windlass_proto::v1::{DepthPolicy, KvPolicy, depth_policy, kv_policy};

async fn client(front: &Front) -> Client {
    Client::connect(&front.grpc).await.unwrap()
}

#[tokio::test]
async fn a_generation_says_text_tokens_depths_and_finish() {
    let worker = FakeWorker::start(Script::says("42")).await;
    let front = Front::ready(&[&worker]).await;
    let options = GenerateOptions {
        max_tokens: Some(2),
        depth: Some(Depth::Fixed(8)),
        kv: Some(Kv::Anchor(4)),
        priority: Some(-2),
        timeout_ms: Some(30_000),
        ..GenerateOptions::default()
    };
    let request = GenerateRequest { options, ..GenerateRequest::text("7+5=") };
    let answer = client(&front).await.generate_whole(request).await.unwrap();
    assert_eq!(answer.text, "42");
    assert_eq!(answer.depths(), [4, 5]);
    assert_eq!(answer.finish.reason, FinishReason::Length);
    assert_eq!(answer.finish.usage.prompt_tokens, 5);
    assert!(answer.finish.seed < 1 << 53, "JavaScript can send the seed back");
    let sent = worker.requests().remove(0);
    let parameters = sent.parameters.unwrap();
    assert_eq!(parameters.depth, Some(DepthPolicy { policy: Some(depth_policy::Policy::Fixed(8)) }));
    assert_eq!(parameters.kv, Some(KvPolicy { policy: Some(kv_policy::Policy::Anchor(4)) }));
    assert_eq!(parameters.priority, Some(-2));
    assert!((25_000..=30_000).contains(&parameters.timeout_ms.unwrap()), "what is left is passed on");
    assert_eq!(parameters.sampling.unwrap().seed, Some(answer.finish.seed), "the seed drawn is reported");
}

#[tokio::test]
async fn a_chat_is_rendered_with_the_models_template() {
    let worker = FakeWorker::start(Script::says("6")).await;
    let front = Front::ready(&[&worker]).await;
    let messages = vec![Message { role: "user".into(), content: "1+5=".into() }];
    let request = GenerateRequest { prompt: Prompt::Chat(messages), ..GenerateRequest::text("") };
    client(&front).await.generate_whole(request).await.unwrap();
    assert_eq!(worker.requests()[0].prompt, [1, 6, 15, 10, 19]);
}

#[tokio::test]
async fn errors_are_told_apart() {
    let worker = FakeWorker::start(Script::says("6")).await;
    let front = Front::ready(&[&worker]).await;
    let client = client(&front).await;
    let options = GenerateOptions { stop: vec![String::new()], ..GenerateOptions::default() };
    let error =
        client.generate_whole(GenerateRequest { options, ..GenerateRequest::text("1") }).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::InvalidArgument { field: Some(field), .. } if field == "stop"),
        "{error:?}"
    );
    assert!(error.to_string().contains("stop: a stop string is empty"), "{error}");
    let messages = vec![Message { role: "robot".into(), content: "1".into() }];
    let request = GenerateRequest { prompt: Prompt::Chat(messages), ..GenerateRequest::text("") };
    let error = client.generate_whole(request).await.unwrap_err().to_string();
    assert!(error.contains("messages[0].role: 'robot' is not a role"), "{error}");
    let error =
        client.generate_whole(GenerateRequest { model: "x".into(), ..GenerateRequest::text("1") }).await;
    assert!(matches!(error, Err(ClientError::NotFound { .. })));
    assert!(matches!(Client::connect("127.0.0.1:9").await, Err(ClientError::Unavailable { .. })));
}

#[tokio::test]
async fn a_workers_refusal_names_the_field_as_grpc_does() {
    let details = ErrorDetails::with_bad_request_violation("reasoning_effort", "'x' is not an effort");
    let refusal = Status::with_error_details(Code::InvalidArgument, "bad request", details);
    let worker = FakeWorker::start(Script { refusal: Some(refusal), ..Script::says("") }).await;
    let front = Front::ready(&[&worker]).await;
    let error = client(&front).await.generate_whole(GenerateRequest::text("1")).await.unwrap_err();
    let ClientError::InvalidArgument { field, message } = error else { panic!("{error:?}") };
    assert_eq!(field.as_deref(), Some("effort"));
    assert_eq!(message, "effort: 'x' is not an effort");
}

#[tokio::test]
async fn a_dropped_stream_ends_the_workers_stream() {
    let script = Script { pause: Duration::from_millis(50), ..Script::says(&"4".repeat(200)) };
    let worker = FakeWorker::start(script).await;
    let front = Front::ready(&[&worker]).await;
    let mut events = Box::pin(client(&front).await.generate(GenerateRequest::text("1")).await.unwrap());
    assert!(matches!(events.next().await, Some(Ok(Event::Delta(_)))));
    drop(events);
    eventually(|| async { worker.seen.aborted.load(Ordering::SeqCst) == 1 }).await;
}

#[tokio::test]
async fn texts_are_tokenised_as_prompts_are() {
    let worker = FakeWorker::start(Script::says("6")).await;
    let front = Front::ready(&[&worker]).await;
    let client = client(&front).await;
    let tokens = client.tokenize("demo", "7=", true).await.unwrap();
    let expected = [(1, "<|begin_text|>"), (12, "7"), (19, "=")].map(|(id, piece)| (id, piece.to_owned()));
    assert_eq!(tokens, expected);
    assert_eq!(client.list_models().await.unwrap()[0].name, "demo");
}

#[tokio::test]
async fn standard_health_follows_readiness() {
    let worker = FakeWorker::start(Script::says("6")).await;
    let front = Front::ready(&[&worker]).await;
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", front.grpc)).unwrap().connect_lazy();
    let status = || async {
        let request = HealthCheckRequest { service: "windlass.v1.Inference".into() };
        HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner().status().as_str_name()
    };
    eventually(|| async { status().await == "SERVING" }).await;
    worker.seen.healthy.store(false, Ordering::SeqCst);
    eventually(|| async { status().await == "NOT_SERVING" }).await;
}

#[tokio::test]
async fn reflection_tells_of_the_services_served_here_and_no_others() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let worker = FakeWorker::start(Script::says("6")).await;
    let front = Front::ready(&[&worker]).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", front.grpc)).unwrap();
    let mut client = ServerReflectionClient::new(endpoint.connect_lazy());
    let mut ask = async |question| {
        let request = tonic_reflection::pb::v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(question),
        };
        let answers = client.server_reflection_info(futures::stream::iter([request])).await?;
        answers.into_inner().message().await.map(|answer| answer.unwrap().message_response.unwrap())
    };
    let list = ask(MessageRequest::ListServices(String::new())).await.unwrap();
    let MessageResponse::ListServicesResponse(list) = list else { panic!("{list:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"windlass.v1.Inference"), "{names:?}");
    assert!(!names.contains(&"windlass.v1.Worker"), "{names:?}");
    let symbol = |name: &str| MessageRequest::FileContainingSymbol(name.to_owned());
    assert!(ask(symbol("windlass.v1.GenerateRequest")).await.is_ok());
    let unknown = ask(symbol("windlass.v1.GenerateTaskRequest")).await;
    assert!(!matches!(unknown, Ok(MessageResponse::FileDescriptorResponse(_))), "{unknown:?}");
}
