use std::time::Instant;

use anyhow::{Context, Result};
use futures::stream::{StreamExt, TryStreamExt, iter};
use indicatif::{ProgressBar, ProgressStyle};
use windlass_client::{Client, Depth, GenerateOptions, GenerateRequest, Sampling};

use crate::puzzles::Puzzle;
use crate::report::Outcome;

/// Puzzles under way at once.
const CONCURRENCY: usize = 256;

/// Has puzzles solved, and shows how far that has come on standard error where that is a terminal.
pub(super) struct Runner {
    client: Client,
    puzzles: Vec<Puzzle>,
    bar: ProgressBar,
}

impl Runner {
    /// For `runs` runs over all puzzles.
    pub(super) fn new(client: Client, puzzles: Vec<Puzzle>, runs: usize) -> Self {
        let style = ProgressStyle::with_template("{msg:10} {wide_bar} {pos} of {len}")
            .expect("the template is well-formed");
        let bar = ProgressBar::new((puzzles.len() * runs) as u64).with_style(style);
        Self { client, puzzles, bar }
    }

    /// Solves all puzzles at this depth. Returns the outcomes in the puzzles' order, and how many seconds they took.
    pub(super) async fn solve(&self, name: &str, depth: Depth) -> Result<(Vec<Outcome>, f64)> {
        self.bar.set_message(name.to_owned());
        let start = Instant::now();
        let outcomes = iter(&self.puzzles)
            .map(|puzzle| self.solve_one(puzzle, depth.clone()))
            .buffered(CONCURRENCY)
            .try_collect::<Vec<_>>()
            .await
            .with_context(|| format!("the puzzles at {name} were not solved"))?;
        Ok((outcomes, start.elapsed().as_secs_f64()))
    }

    async fn solve_one(&self, puzzle: &Puzzle, depth: Depth) -> Result<Outcome> {
        let options = GenerateOptions {
            // One token for each character, and the end.
            max_tokens: Some(puzzle.answer.len() as u32 + 1),
            depth: Some(depth),
            sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
            ..GenerateOptions::default()
        };
        let request = GenerateRequest { options, ..GenerateRequest::text(&puzzle.prompt) };
        let generated =
            self.client.generate_whole(request).await.with_context(|| format!("puzzle {}", puzzle.prompt))?;
        self.bar.inc(1);
        let tokens = generated.tokens.iter().map(|token| (token.id, token.depth)).collect();
        Ok(Outcome { puzzle: puzzle.clone(), text: generated.text, tokens })
    }

    /// Takes the progress bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
