//! Long texts, which hold up nobody else.

use std::time::{Duration, Instant};

use serde_json::json;
use windlass_proto::v1::TokenizeRequest;
use windlass_proto::v1::inference_client::InferenceClient;

use crate::support::{FakeWorker, Front, Script};

/// Just below what a body may have.
const BYTES: usize = 3 << 20;

/// Asserts that others get on while `work` is done: here there is one thread for all of them.
async fn assert_lets_others_go_on<T>(what: &str, work: impl Future<Output = T>) -> T {
    let (begin, mut longest, mut last) = (Instant::now(), Duration::ZERO, Instant::now());
    tokio::pin!(work);
    loop {
        let done = tokio::select! {
            biased;
            done = &mut work => Some(done),
            () = tokio::time::sleep(Duration::from_millis(1)) => None,
        };
        longest = longest.max(last.elapsed());
        last = Instant::now();
        if let Some(done) = done {
            let whole = begin.elapsed();
            assert!(longest * 2 < whole, "{what}: nobody else had a turn for {longest:?} of {whole:?}");
            return done;
        }
    }
}

#[tokio::test]
async fn tokenising_much_text_holds_up_nobody_else() {
    let worker = FakeWorker::start(Script::says("4")).await;
    let front = Front::ready(&[&worker]).await;
    let text = "7+5=".repeat(BYTES / 4);

    let mut client = InferenceClient::connect(format!("http://{}", front.grpc)).await.unwrap();
    client = client.max_decoding_message_size(64 << 20);
    let request = TokenizeRequest { text: text.clone(), ..TokenizeRequest::default() };
    let answer = assert_lets_others_go_on("one text", client.tokenize(request)).await;
    assert_eq!(answer.unwrap().into_inner().ids.len(), BYTES);

    // Each of them is short.
    let prompts = vec![&text[..BYTES / 256]; 256];
    let body = json!({"prompt": prompts});
    let (status, answer) = assert_lets_others_go_on("many texts", front.post("/v1/completions", &body)).await;
    assert_eq!((status, answer["error"]["param"].as_str()), (400, Some("prompt")), "{answer}");

    let body = json!({"tokens": vec![7; BYTES / 2]});
    let (status, answer) = assert_lets_others_go_on("tokens", front.post("/detokenize", &body)).await;
    assert_eq!((status, answer["prompt"].as_str().unwrap().len()), (200, BYTES / 2));
}
