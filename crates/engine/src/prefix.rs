//! Which K/V blocks hold which prompt beginnings, so that a later prompt that begins alike need not compute them again.
//!
//! An entry is one block of positions at every slot. It is found by its tokens and the entry before it, compared as they
//! are, never by a hash alone: a hit cannot be wrong. What else K/V depend on is the [`Context`] a chain of entries begins
//! with.

use std::collections::{BTreeMap, HashMap};

use windlass_kernels::{BLOCK_POSITIONS, BlockId};
use windlass_model::{Depth, KvPolicy};

use crate::request::Request;

/// What K/V of a prompt position depend on besides the tokens up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Context {
    kv: KvPolicy,
    depth: Depth,
    latent_seed: u64,
    /// Bits of the factor on initial latents.
    init_scale: u32,
}

impl Context {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            kv: request.kv,
            depth: request.depth.max(),
            latent_seed: request.latent_seed,
            init_scale: request.init_scale.to_bits(),
        }
    }
}

type Tokens = [u32; BLOCK_POSITIONS];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    before: Before,
    tokens: Tokens,
}

/// What an entry follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Before {
    /// Nothing: its block is a prompt's first.
    Nothing(Context),
    /// The entry of this number. Numbers are never used again, so what follows a lost entry is not found by mistake.
    Entry(u64),
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// By slot.
    blocks: Box<[BlockId]>,
    /// When it was last used; of a chain the end first, so that what is given up first is nothing's beginning.
    used: u64,
}

/// The blocks kept for prompts to come. Which of them are idle the pool knows.
#[derive(Debug, Default)]
pub(crate) struct PrefixCache {
    entries: HashMap<Key, Entry>,
    by_use: BTreeMap<u64, Key>,
    /// Numbers of entries and of uses.
    next: u64,
}

impl PrefixCache {
    /// The entries that `tokens` begins with, in order; each one's blocks by slot go to `hit`. A part that does not fill a
    /// block is never found.
    pub(crate) fn find(&mut self, context: Context, tokens: &[u32], mut hit: impl FnMut(&[BlockId])) {
        let mut before = Before::Nothing(context);
        let mut found = Vec::new();
        for tokens in tokens.as_chunks().0 {
            let key = Key { before, tokens: *tokens };
            let Some(entry) = self.entries.get(&key) else { break };
            hit(&entry.blocks);
            before = Before::Entry(entry.number);
            found.push(key);
        }
        for key in found.into_iter().rev() {
            self.touch(key);
        }
    }

    /// Adds an entry for every block that `tokens` fills and that is not there; `blocks` gives those of the i-th block by
    /// slot. They belong to the cache too from now on.
    pub(crate) fn insert(
        &mut self,
        context: Context,
        tokens: &[u32],
        mut blocks: impl FnMut(usize) -> Box<[BlockId]>,
    ) {
        let mut before = Before::Nothing(context);
        let mut chain = Vec::new();
        for (i, tokens) in tokens.as_chunks().0.iter().enumerate() {
            let key = Key { before, tokens: *tokens };
            if !self.entries.contains_key(&key) {
                let number = self.count();
                let used = self.count();
                self.entries.insert(key, Entry { number, blocks: blocks(i), used });
                self.by_use.insert(used, key);
            }
            before = Before::Entry(self.entries[&key].number);
            chain.push(key);
        }
        for key in chain.into_iter().rev() {
            self.touch(key);
        }
    }

    /// Takes out the entry that was not used for longest among those for which `is_idle` holds of every block. Its blocks
    /// are the caller's to give up.
    pub(crate) fn evict(&mut self, is_idle: impl Fn(BlockId) -> bool) -> Option<Box<[BlockId]>> {
        let idle = |key: &Key| self.entries[key].blocks.iter().all(|block| is_idle(*block));
        let (&used, &key) = self.by_use.iter().find(|(_, key)| idle(key))?;
        self.by_use.remove(&used);
        self.entries.remove(&key).map(|entry| entry.blocks)
    }

    /// Blocks of all entries.
    pub(crate) fn blocks(&self) -> usize {
        self.entries.values().map(|entry| entry.blocks.len()).sum()
    }

    fn touch(&mut self, key: Key) {
        let used = self.count();
        let entry = self.entries.get_mut(&key).expect("it was just found");
        self.by_use.remove(&std::mem::replace(&mut entry.used, used));
        self.by_use.insert(used, key);
    }

    fn count(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_model::DepthPolicy;

    fn context(depth: Depth) -> Context {
        Context::of(&Request::greedy(vec![1], 1, DepthPolicy::Fixed(depth), KvPolicy::Full))
    }

    fn prompt(blocks: usize, last: u32) -> Vec<u32> {
        let mut tokens = vec![7; blocks * BLOCK_POSITIONS];
        *tokens.last_mut().expect("at least one block") = last;
        tokens
    }

    fn found(cache: &mut PrefixCache, context: Context, tokens: &[u32]) -> Vec<BlockId> {
        let mut blocks = Vec::new();
        cache.find(context, tokens, |hit| blocks.extend_from_slice(hit));
        blocks
    }

    /// A cache of a chain of three blocks and one that leaves it at the third.
    fn filled() -> PrefixCache {
        let mut cache = PrefixCache::default();
        cache.insert(context(4), &prompt(3, 1), |i| [10 + i as u32].into());
        cache.insert(context(4), &prompt(3, 2), |i| [20 + i as u32].into());
        cache
    }

    #[test]
    fn the_longest_common_beginning_is_found() {
        let mut cache = filled();
        assert_eq!(found(&mut cache, context(4), &prompt(3, 1)), [10, 11, 12]);
        assert_eq!(found(&mut cache, context(4), &prompt(3, 2)), [10, 11, 22]);
        assert_eq!(found(&mut cache, context(4), &prompt(3, 3)), [10, 11]);
        assert_eq!(found(&mut cache, context(4), &prompt(3, 1)[..40]), [10, 11]);
        assert!(found(&mut cache, context(5), &prompt(3, 1)).is_empty());
    }

    #[test]
    fn the_end_of_the_chain_unused_for_longest_goes_first() {
        let mut cache = filled();
        found(&mut cache, context(4), &prompt(3, 1));
        let mut order = || cache.evict(|_| true).map(|blocks| blocks[0]);
        assert_eq!(
            [order(), order(), order(), order(), order()],
            [Some(22), Some(12), Some(11), Some(10), None]
        );
    }

    #[test]
    fn blocks_in_use_stay() {
        let mut cache = filled();
        assert_eq!(cache.evict(|block| block != 22).as_deref(), Some(&[12][..]));
        assert_eq!(cache.evict(|_| false), None);
        assert_eq!(cache.blocks(), 3);
    }
}
