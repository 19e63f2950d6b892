// What ranks of a group have of a sum.

// out[i] = parts[0][i] + parts[1][i] + …, in the order of ranks; a thread for each of `count` numbers.
KERNEL add_ranks(const float* parts, u32 ranks, u32 count, float* out) {
    const u32 i = blockIdx.x * ROW_THREADS + threadIdx.x;
    if (i >= count) {
        return;
    }
    float sum = parts[i];
    for (u32 rank = 1; rank < ranks; ++rank) {
        sum += parts[static_cast<u64>(rank) * count + i];
    }
    out[i] = sum;
}
