//! What every mode is given to do.

use windlass_engine::{Request, RequestId};
use windlass_model::{Depth, DepthPolicy, KvPolicy};

use super::work::{PerPart, PerWork};

/// Requests with the depth of each of their tokens decided beforehand.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Workload {
    /// Positions of each prompt, at least one.
    prompt: usize,
    kv: KvPolicy,
    vocabulary: usize,
    most: Depth,
    /// The depth of each token of each request; that of the first is the prompt's, `most`.
    depths: Vec<Vec<Depth>>,
}

impl Workload {
    /// Requests whose tokens take `depths`, none above `most`, but for the first of each: it takes the prompt's depth, which
    /// is `most`.
    pub(super) fn new(
        (prompt, vocabulary): (usize, usize),
        kv: KvPolicy,
        most: Depth,
        mut depths: Vec<Vec<Depth>>,
    ) -> Self {
        for depths in &mut depths {
            depths[0] = most;
        }
        Self { prompt, kv, vocabulary, most, depths }
    }

    /// All requests. Without exits every token takes the most iterations.
    pub(super) fn requests(&self, has_exits: bool) -> impl Iterator<Item = (RequestId, Request)> {
        self.depths.iter().enumerate().map(move |(index, depths)| {
            let depths = if has_exits { depths.clone() } else { vec![self.most; depths.len()] };
            let prompt = (0..self.prompt).map(|i| ((7 * index + 3 * i + 5) % self.vocabulary) as u32);
            let policy = DepthPolicy::Fixed(self.most);
            let request = Request {
                ignore_model_stops: true,
                recorded_depths: Some(depths.clone()),
                ..Request::greedy(prompt.collect(), depths.len(), policy, self.kv)
            };
            (RequestId(index as u64), request)
        })
    }

    /// At most so many of the requests.
    pub(super) fn first(&self, requests: usize) -> Self {
        Self { depths: self.depths.iter().take(requests).cloned().collect(), ..*self }
    }

    /// The same prompts with at most `tokens` tokens each.
    pub(super) fn cut(&self, tokens: usize) -> Self {
        let cut = |depths: &Vec<Depth>| depths[..tokens.min(depths.len())].to_vec();
        Self { depths: self.depths.iter().map(cut).collect(), ..*self }
    }

    /// The same prompts and numbers of tokens; of so many tokens in a row the first takes the most iterations, the others take one.
    pub(super) fn sparse(&self, tokens: usize) -> Self {
        let depth = |token: usize| if token.is_multiple_of(tokens) { self.most } else { 1 };
        Self {
            depths: self.depths.iter().map(|depths| (0..depths.len()).map(depth).collect()).collect(),
            ..*self
        }
    }

    /// The requests dealt out to so many workloads in turn.
    pub(super) fn dealt(&self, workloads: usize) -> Vec<Self> {
        let dealt = |first| self.depths.iter().skip(first).step_by(workloads).cloned().collect();
        (0..workloads).map(|first| Self { depths: dealt(first), ..*self }).collect()
    }

    /// How many requests.
    pub(super) fn len(&self) -> usize {
        self.depths.len()
    }

    /// Tokens of all requests.
    pub(super) fn tokens(&self) -> usize {
        self.depths.iter().map(Vec::len).sum()
    }

    /// Tokens of the longest request.
    pub(super) fn longest(&self) -> usize {
        self.depths.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The deepest that a token can be.
    pub(super) fn most(&self) -> Depth {
        self.most
    }

    /// Mean depth of all tokens.
    pub(super) fn mean_depth(&self) -> f64 {
        self.depths.iter().flatten().copied().map(f64::from).sum::<f64>() / self.tokens() as f64
    }

    /// Rows of each kind of work that the recorded depths need. A request's first token comes of its prompt, and its last is
    /// never read back.
    pub(super) fn needed(&self) -> PerWork<u64> {
        let prompt = (self.len() * self.prompt) as u64;
        let generated = (self.tokens() - self.len()) as u64;
        let iterations = self.depths.iter().flat_map(|depths| &depths[1..]).copied().map(u64::from).sum();
        PerWork {
            prompt: PerPart { prelude: prompt, core: prompt * u64::from(self.most), coda: prompt },
            generated: PerPart { prelude: generated, core: iterations, coda: generated },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(prompt: usize) -> Workload {
        Workload::new((prompt, 10), KvPolicy::Full, 8, vec![vec![1, 2, 3], vec![4, 5]])
    }

    #[test]
    fn prompts_and_first_tokens_take_the_most_iterations() {
        let workload = workload(4);
        // Two prompts of four positions at depth 8 give the first tokens; then 2, 3 and 5.
        let expected = PerWork {
            prompt: PerPart { prelude: 8, core: 8 * 8, coda: 8 },
            generated: PerPart { prelude: 3, core: 2 + 3 + 5, coda: 3 },
        };
        assert_eq!(workload.needed(), expected);
        assert_eq!((workload.tokens(), workload.longest(), workload.mean_depth()), (5, 3, 26.0 / 5.0));
    }

    #[test]
    fn requests_are_dealt_out_once_in_turn() {
        let depths = vec![vec![8], vec![8, 1], vec![8, 2], vec![8, 3], vec![8, 4]];
        let workload = Workload::new((1, 10), KvPolicy::Full, 8, depths.clone());
        let dealt = workload.dealt(2);
        let of = |indices: &[usize]| indices.iter().map(|&i| depths[i].clone()).collect::<Vec<_>>();
        assert_eq!([&dealt[0].depths, &dealt[1].depths], [&of(&[0, 2, 4]), &of(&[1, 3])]);
        assert_eq!(workload.first(2).depths, of(&[0, 1]));
        assert_eq!(workload.first(9), workload);
    }

    #[test]
    fn requests_replay_their_depths_or_take_the_most() {
        let workload = workload(4);
        let depths = |has_exits| -> Vec<_> {
            workload.requests(has_exits).map(|(_, request)| request.recorded_depths.unwrap()).collect()
        };
        assert_eq!(depths(true), [vec![8, 2, 3], vec![8, 5]]);
        assert_eq!(depths(false), [vec![8, 8, 8], vec![8, 8]]);
        assert_eq!(workload.cut(2).tokens(), 4);
        assert_eq!(workload.sparse(2).depths, [vec![8, 1, 8], vec![8, 1]]);
        assert!(workload.requests(true).all(|(_, request)| request.prompt.iter().all(|&id| id < 10)));
    }
}
