// Keys and values in blocks, [blocks][layers][keys, values][heads][BLOCK_POSITIONS][head_dim]; values in bf16 are
// [head_dim][BLOCK_POSITIONS], so that the matrix instruction finds those of neighbouring positions side by side.

// A row of a launch; the host lays out the same.
struct KvRow {
    u32 position;
    // The slot it wants from earlier positions.
    u32 slot;
    // The block it writes to.
    u32 written;
    // Where in the words of all tables its lane's blocks begin, [slot][position / BLOCK_POSITIONS]; how many there are of a
    // slot; and where the highest slot of each position begins.
    u32 blocks, blocks_per_slot, top_slots;
};

struct KvLayout {
    u32 layers, layer, heads, head_dim;

    __device__ __forceinline__ u64 side() const { return static_cast<u64>(heads) * BLOCK_POSITIONS * head_dim; }

    // Where the keys of a head at a position are in a block; its values are one side further.
    __device__ __forceinline__ u64 keys_at(u32 block, u32 head, u32 position) const {
        const u64 layer_at = (static_cast<u64>(block) * layers + layer) * 2 * side();
        return layer_at + (static_cast<u64>(head) * BLOCK_POSITIONS + position % BLOCK_POSITIONS) * head_dim;
    }
};

// Writes the values of a position in dimensions j and j + 1 to those of a head in a block.
__device__ __forceinline__ void store_values(float* to, u32 position, u32 j, u32 head_dim, float x, float y) {
    store(to + position % BLOCK_POSITIONS * head_dim + j, x);
    store(to + position % BLOCK_POSITIONS * head_dim + j + 1, y);
}
__device__ __forceinline__ void store_values(Bf16* to, u32 position, u32 j, u32, float x, float y) {
    store(to + j * BLOCK_POSITIONS + position % BLOCK_POSITIONS, x);
    store(to + (j + 1) * BLOCK_POSITIONS + position % BLOCK_POSITIONS, y);
}

// The block that `row` reads at `position`.
__device__ __forceinline__ u32 readable_block(const KvRow& row, const u32* words, u32 position) {
    const u32 slot = lesser(row.slot, words[row.top_slots + position]);
    return words[row.blocks + slot * row.blocks_per_slot + position / BLOCK_POSITIONS];
}
