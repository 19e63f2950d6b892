//! Log-probabilities of a row of logits.

use windlass_model::exit::log_softmax;

/// The log-probability of `token` and the `count` most likely tokens with theirs, best first, equals by id.
pub(crate) fn logprobs(logits: &[f32], token: u32, count: usize) -> (Option<f32>, Vec<(u32, f32)>) {
    let all = log_softmax(logits);
    let mut order: Vec<u32> = (0..all.len() as u32).collect();
    let by_likelihood = |a: &u32, b: &u32| all[*b as usize].total_cmp(&all[*a as usize]).then(a.cmp(b));
    if count > 0 && count < order.len() {
        order.select_nth_unstable_by(count - 1, by_likelihood);
    }
    order.truncate(count);
    order.sort_unstable_by(by_likelihood);
    let top = order.into_iter().map(|token| (token, all[token as usize] as f32)).collect();
    (Some(all[token as usize] as f32), top)
}
