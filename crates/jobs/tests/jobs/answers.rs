use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use windlass_jobs::{Execute, ExecuteError, Task};
use windlass_proto::v1::{FinishReason, ItemAnswer, ItemResult, JobItem, Usage, item_result, job_item};

use crate::dice::Dice;

/// Answers an item after a while: with its own text and seed and the number of the run, so that no two runs of an item
/// say the same, and with an error for every tenth.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) dice: Arc<Dice>,
    pub(crate) fault_percent: u64,
    pub(crate) asked: AtomicUsize,
    pub(crate) at_once: AtomicUsize,
    pub(crate) most_at_once: AtomicUsize,
    /// Whether nobody serves the model [`RARE`].
    pub(crate) is_rare_away: AtomicBool,
    /// Whether somebody who serves nothing new may still be at work.
    pub(crate) drains: AtomicBool,
    seeds: Mutex<BTreeMap<String, u64>>,
}

/// A model that may be away.
pub(crate) const RARE: &str = "rare";

/// Counts those that are answered right now, also when they are given up.
struct Presence<'a>(&'a AtomicUsize);

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Answers {
    pub(crate) fn new(dice: Arc<Dice>, fault_percent: u64) -> Arc<Self> {
        Arc::new(Self {
            dice,
            fault_percent,
            asked: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            is_rare_away: AtomicBool::new(false),
            drains: AtomicBool::new(false),
            seeds: Mutex::default(),
        })
    }

    /// Seeds by text, as they were asked with.
    fn note(&self, text: &str, seed: u64) {
        let earlier = self.seeds.lock().unwrap().insert(text.to_owned(), seed);
        assert!(
            earlier.is_none_or(|earlier| earlier == seed),
            "item '{text}' was done again with another seed"
        );
    }
}

#[async_trait]
impl Execute for Answers {
    fn can_answer(&self, model: &str) -> bool {
        model != RARE || !self.is_rare_away.load(Ordering::SeqCst)
    }

    fn is_away(&self, model: &str) -> bool {
        !self.can_answer(model) && !self.drains.load(Ordering::SeqCst)
    }

    async fn execute(&self, task: Task) -> Result<ItemAnswer, ExecuteError> {
        let job_item::Prompt::Text(text) = task.prompt else { panic!("no text") };
        let seed = task.parameters.sampling.unwrap().seed.unwrap();
        self.note(&text, seed);
        let run = self.asked.fetch_add(1, Ordering::SeqCst);
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        let _presence = Presence(&self.at_once);
        self.dice.wait(300).await;
        if !self.can_answer(&task.model) || self.dice.happens(self.fault_percent) {
            return Err(ExecuteError::Transient { message: "busy".into() });
        }
        if is_bad(&text) {
            let (code, message) = ("invalid_request".to_owned(), format!("{text} is bad"));
            return Err(ExecuteError::Final { code, message });
        }
        Ok(answer(&text, run, seed))
    }
}

/// Items whose text ends with 7 are at fault.
fn is_bad(text: &str) -> bool {
    text.ends_with('7')
}

fn answer(text: &str, run: usize, seed: u64) -> ItemAnswer {
    let depths: Vec<u32> = text.bytes().map(|byte| u32::from(byte % 8) + 1).collect();
    let usage = Usage {
        prompt_tokens: 3,
        completion_tokens: depths.len() as u32,
        completion_core_iterations: depths.iter().map(|depth| u64::from(*depth)).sum(),
        ..Usage::default()
    };
    ItemAnswer {
        text: format!("answer {run} to {text}"),
        token_ids: text.bytes().map(u32::from).collect(),
        depths,
        finish_reason: FinishReason::Length.into(),
        usage: Some(usage),
        seed,
    }
}

/// `count` items with texts of their own.
pub(crate) fn items(count: u64) -> Vec<JobItem> {
    (0..count)
        .map(|index| JobItem {
            id: format!("item-{index}"),
            prompt: Some(job_item::Prompt::Text(format!("text {index}"))),
            ..JobItem::default()
        })
        .collect()
}

/// Whether this is what item `index` of `items` must get.
pub(crate) fn check(result: &ItemResult, index: u64) {
    assert_eq!((result.index, result.id.clone()), (index, format!("item-{index}")));
    let text = format!("text {index}");
    match result.outcome.as_ref().unwrap() {
        item_result::Outcome::Error(error) => {
            assert!(is_bad(&text) && error.message == format!("{text} is bad"), "{error:?}");
        }
        item_result::Outcome::Answer(given) => {
            assert!(!is_bad(&text));
            let run = given.text.split(' ').nth(1).unwrap().parse().unwrap();
            assert_eq!(given, &answer(&text, run, given.seed));
        }
    }
}
