//! Prompts that begin alike belong to the same worker, whose prefix cache has what they share.

use std::hash::{DefaultHasher, Hash, Hasher};

use windlass_proto::v1::{GenerationParameters, kv_policy};

use crate::random::mix;

/// Prefixes are cached by whole blocks of this many positions.
const BLOCK_POSITIONS: usize = 16;
/// What lies behind these positions does not count: a conversation stays where it began, however long it gets. Shorter
/// beginnings count as they are; what the cache saves of them is little.
const PREFIX_POSITIONS: usize = 64;

/// What prompts that can share cached blocks have in common: their first tokens, and what else the cache depends on, of
/// which `prompt_depth` is the iterations of prompt positions. `None` for a prompt too short to be cached.
pub(crate) fn affinity(prompt: &[u32], parameters: &GenerationParameters, prompt_depth: u32) -> Option<u64> {
    // The last position is never taken from the cache.
    let blocks = prompt.len().saturating_sub(1).min(PREFIX_POSITIONS) / BLOCK_POSITIONS;
    if blocks == 0 {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    prompt[..blocks * BLOCK_POSITIONS].hash(&mut hasher);
    match parameters.kv.as_ref().and_then(|kv| kv.policy.as_ref()) {
        None | Some(kv_policy::Policy::Full(_)) => (0, 0).hash(&mut hasher),
        Some(kv_policy::Policy::Ring(slots)) => (1, *slots).hash(&mut hasher),
        Some(kv_policy::Policy::Anchor(slots)) => (2, *slots).hash(&mut hasher),
    }
    let scale = parameters.init_scale.unwrap_or(1.0).to_bits();
    (prompt_depth, parameters.latent_seed, scale).hash(&mut hasher);
    Some(hasher.finish())
}

/// A worker's part in [`rank`].
pub(crate) fn worker_hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// The worker of the highest rank gets the prompts of a key. When workers come or go, only the keys that they get or had
/// move (rendezvous hashing, Thaler and Ravishankar 1998).
pub(super) fn rank(key: u64, worker_hash: u64) -> u64 {
    mix(key ^ worker_hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_proto::v1::{FullKv, KvPolicy};

    fn key(prompt: &[u32]) -> Option<u64> {
        affinity(prompt, &GenerationParameters::default(), 16)
    }

    #[test]
    fn a_conversation_keeps_its_key_as_it_grows() {
        let long: Vec<u32> = (0..300).collect();
        assert_eq!(key(&long[..65]), key(&long));
        assert_ne!(key(&long[..64]), key(&long), "the last position is not cached");
        let mut other = long.clone();
        other[3] = 9;
        assert_ne!(key(&other), key(&long));
        assert_eq!(key(&long[..16]), None, "no whole block besides the last position");
    }

    #[test]
    fn whatever_the_cache_depends_on_makes_another_key() {
        let prompt: Vec<u32> = (0..40).collect();
        let of = |parameters: GenerationParameters| affinity(&prompt, &parameters, 16);
        let kv = |policy| Some(KvPolicy { policy: Some(policy) });
        let plain = of(GenerationParameters::default());
        let full = kv(kv_policy::Policy::Full(FullKv {}));
        assert_eq!(of(GenerationParameters { kv: full, ..Default::default() }), plain);
        let ring = kv(kv_policy::Policy::Ring(4));
        assert_ne!(of(GenerationParameters { kv: ring, ..Default::default() }), plain);
        assert_ne!(of(GenerationParameters { latent_seed: Some(1), ..Default::default() }), plain);
        assert_ne!(of(GenerationParameters { init_scale: Some(0.5), ..Default::default() }), plain);
        assert_ne!(affinity(&prompt, &GenerationParameters::default(), 8), plain);
        assert_eq!(of(GenerationParameters { priority: Some(3), ..Default::default() }), plain);
    }

    #[test]
    fn only_the_keys_of_a_worker_that_leaves_move() {
        let workers: Vec<u64> = (0..10).map(|i| worker_hash(&format!("worker-{i}"))).collect();
        let best =
            |key: u64, workers: &[u64]| workers.iter().copied().max_by_key(|worker| rank(key, *worker));
        let mut moved = 0;
        for key in 0..1000 {
            let (before, after) = (best(key, &workers), best(key, &workers[1..]));
            assert!(before == after || before == Some(workers[0]));
            moved += usize::from(before != after);
        }
        assert!((50..200).contains(&moved), "a tenth of the keys, not {moved} of 1000");
    }
}
