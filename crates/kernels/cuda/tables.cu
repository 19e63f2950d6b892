// The tables of lanes: words, of which a launch brings those that have changed.

// words[pairs[2 i]] = pairs[2 i + 1]. A word may be there twice, with one value.
KERNEL set_words(const u32* pairs, u32 count, u32* words) {
    const u32 i = blockIdx.x * ROW_THREADS + threadIdx.x;
    if (i < count) {
        words[pairs[2 * i]] = pairs[2 * i + 1];
    }
}
