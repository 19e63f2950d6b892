// Rows that are copied as they are.

// to[rows[i]] = from[i]; a block per row.
KERNEL scatter(const float* from, float* to, const u32* rows, u32 width) {
    const float* source = from + static_cast<u64>(blockIdx.x) * width;
    float* target = to + row_at(rows, blockIdx.x) * width;
    for (u32 j = threadIdx.x; j < width; j += ROW_THREADS) {
        target[j] = source[j];
    }
}

// out[i] = table[tokens[i]] · scale; a block per row.
KERNEL embed(const float* table, const u32* tokens, float scale, float* out, u32 width) {
    const float* source = table + static_cast<u64>(tokens[blockIdx.x]) * width;
    float* target = out + static_cast<u64>(blockIdx.x) * width;
    for (u32 j = threadIdx.x; j < width; j += ROW_THREADS) {
        target[j] = source[j] * scale;
    }
}
