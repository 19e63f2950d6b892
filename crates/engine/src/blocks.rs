//! K/V blocks: those of lanes, those kept for prompts to come, and the free ones.

use windlass_kernels::{BLOCK_POSITIONS, BlockId, KvTable};

use crate::pool::Pool;
use crate::prefix::{Context, PrefixCache};
use crate::request::Request;

/// All K/V blocks of an engine.
#[derive(Debug)]
pub(crate) struct Blocks {
    pool: Pool,
    /// None where prompts are computed anew each time.
    cache: Option<PrefixCache>,
}

impl Blocks {
    pub(crate) fn new(total: usize, prefix_cache: bool) -> Self {
        Self { pool: Pool::new(total), cache: prefix_cache.then(PrefixCache::default) }
    }

    pub(crate) fn total(&self) -> usize {
        self.pool.total()
    }

    /// Blocks that lanes hold.
    pub(crate) fn used(&self) -> usize {
        self.pool.used()
    }

    /// Blocks that only the prefix cache holds.
    pub(crate) fn cached(&self) -> usize {
        self.pool.idle()
    }

    /// Blocks that can be taken.
    pub(crate) fn available(&self) -> usize {
        self.pool.free() + self.pool.idle()
    }

    /// A block; what the cache has not used for longest makes room.
    ///
    /// # Panics
    /// If none is [`Self::available`].
    pub(crate) fn take(&mut self) -> BlockId {
        if self.pool.free() == 0 {
            let Self { pool, cache } = self;
            let evicted = cache.as_mut().and_then(|cache| cache.evict(|block| pool.is_idle(block)));
            evicted.expect("a block is available").iter().for_each(|block| pool.give_up(*block));
        }
        self.pool.take().expect("a block was made free")
    }

    /// Fills `table` with the blocks that hold the beginning of the request's prompt, and returns how many positions those
    /// are: a multiple of `granularity` positions, itself one of the block's, and never the whole prompt, whose last
    /// position must run.
    pub(crate) fn reuse(&mut self, request: &Request, granularity: usize, table: &mut KvTable) -> usize {
        let Some(cache) = &mut self.cache else { return 0 };
        let context = Context::of(request);
        let longest = (request.prompt.len() - 1) / granularity * granularity;
        let mut positions = 0;
        cache.find(context, &request.prompt[..longest], |_| positions += BLOCK_POSITIONS);
        let positions = positions / granularity * granularity;
        let top_slot = request.kv.slots(request.depth.max());
        let mut from = 0;
        cache.find(context, &request.prompt[..positions], |blocks| {
            for (slot, &block) in (0..).zip(blocks) {
                self.pool.share(block);
                table.set_block(slot, from, block);
            }
            (from..from + BLOCK_POSITIONS).for_each(|position| table.set_top_slot(position, top_slot));
            from += BLOCK_POSITIONS;
        });
        positions
    }

    /// Keeps the blocks of the request's prompt, all of whose positions are done, as far as they make up whole units of
    /// `granularity` positions.
    pub(crate) fn keep(&mut self, request: &Request, granularity: usize, table: &KvTable) {
        let Self { pool, cache: Some(cache) } = self else { return };
        let whole = request.prompt.len() / granularity * granularity;
        let slots = request.kv.slots(request.depth.max());
        cache.insert(Context::of(request), &request.prompt[..whole], |i| {
            let block =
                |slot| table.block(slot, i * BLOCK_POSITIONS).expect("a done position has every block");
            let blocks: Box<[BlockId]> = (0..=slots).map(block).collect();
            blocks.iter().for_each(|block| pool.keep(*block));
            blocks
        });
    }

    /// Takes all blocks out of a lane's table.
    pub(crate) fn release(&mut self, table: &mut KvTable) {
        table.clear(|block| self.pool.release(block));
    }

    /// Whether every block is free or in the cache, and the cache's are all idle.
    pub(crate) fn is_whole(&self) -> bool {
        let cached = self.cache.as_ref().map_or(0, PrefixCache::blocks);
        self.pool.used() == 0 && self.pool.idle() == cached && self.pool.free() + cached == self.pool.total()
    }
}
