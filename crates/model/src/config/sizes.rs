//! The largest sizes of a model. None is known that comes near them, and every backend computes up to them.

/// Of the width: an adapter has twice as many inputs, and sums of int8 have room for those of [`MOST_INTERMEDIATE`].
pub(crate) const MOST_HIDDEN: u64 = 1 << 15;
/// Of the feed-forward's columns.
pub(crate) const MOST_INTERMEDIATE: u64 = 1 << 16;
/// Of the vocabulary.
pub(crate) const MOST_VOCABULARY: u64 = 1 << 19;
/// Of a head.
pub(crate) const MOST_HEAD_DIM: u64 = 256;

/// Whether a head can have this size: pairs are turned by their position.
pub(crate) fn is_head_dim(size: u64) -> bool {
    size <= MOST_HEAD_DIM && size.is_multiple_of(2)
}
