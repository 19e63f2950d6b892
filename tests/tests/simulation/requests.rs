//! The requests of all simulations, and what their answers are when nothing disturbs them.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Status};
use windlass_proto::v1::inference_client::InferenceClient;
use windlass_proto::v1::{
    Finish, GenerateRequest, GenerationParameters, Sampling, TextDelta, TokenIds, generate_request,
    generate_response::Event,
};

use crate::cluster::{Cluster, Way};
use crate::dice::Dice;

/// How many there are.
pub(crate) const REQUESTS: usize = 16;

/// A whole answer: ids and depths of its tokens, its text, and its end.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Answer {
    pub(crate) tokens: Vec<(u32, u32)>,
    pub(crate) text: String,
    pub(crate) finish: Option<Finish>,
}

impl Answer {
    /// Takes the next event of a stream.
    pub(crate) fn take(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Delta(TextDelta { text, tokens })) => {
                self.text.push_str(&text);
                self.tokens.extend(tokens.iter().map(|token| (token.id, token.depth)));
            }
            Some(Event::Finish(finish)) => self.finish = Some(finish),
            None => {}
        }
    }
}

/// The answers of an undisturbed cluster of one worker.
pub(crate) static UNDISTURBED: LazyLock<Vec<Answer>> = LazyLock::new(|| {
    let answers = Arc::new(Mutex::new(Vec::new()));
    let mut cluster = Cluster::new(0, 1, 1);
    let sink = Arc::clone(&answers);
    cluster.client("client", move |way| async move {
        let channel = way.coordinator(0);
        for index in 0..REQUESTS {
            let answer = ask(&way, &channel, index).await?;
            sink.lock().expect("not poisoned").push(answer);
        }
        Ok(())
    });
    cluster.run_undisturbed();
    let answers = std::mem::take(&mut *answers.lock().expect("not poisoned"));
    assert!(answers.iter().all(|answer| answer.finish.is_some() && answer.tokens.len() > 10));
    answers
});

/// The request of this index.
pub(crate) fn request(index: usize) -> GenerateRequest {
    let dice = Dice::new(index as u64);
    let ids = (0..1 + dice.roll(30)).map(|_| dice.roll(20) as u32).collect();
    GenerateRequest {
        prompt: Some(generate_request::Prompt::TokenIds(TokenIds { ids })),
        parameters: Some(GenerationParameters {
            max_tokens: Some(20 + dice.roll(80) as u32),
            ignore_eos: true,
            sampling: Some(Sampling { seed: Some(dice.roll(1 << 50)), ..Sampling::default() }),
            ..GenerationParameters::default()
        }),
        ..GenerateRequest::default()
    }
}

/// Asks until a worker took it; then the answer must come.
pub(crate) async fn ask(way: &Way, channel: &Channel, index: usize) -> Result<Answer, Status> {
    let mut client = InferenceClient::new(channel.clone());
    loop {
        way.note(&format!("asks request {index}"));
        let mut events = match client.generate(request(index)).await {
            Ok(response) => response.into_inner(),
            Err(status) if matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) => {
                way.note(&format!("request {index} is refused: {}", status.message()));
                sleep(Duration::from_millis(200)).await;
                continue;
            }
            Err(status) => return Err(status),
        };
        let mut answer = Answer::default();
        while let Some(response) = events.message().await? {
            way.note(&format!("request {index}: {:?}", response.event));
            answer.take(response.event);
        }
        return Ok(answer);
    }
}
