// What ranks of a group have of sums and of outputs.

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

// The outputs of all ranks side by side: those of rank r begin at starts[r] of a row of `whole`. Of each rank `parts` has its rows,
// one after the other, `stride` numbers behind those of the rank before. A block per row and rank.
KERNEL join_parts(const float* parts, const u32* starts, u32 stride, float* whole) {
    const u32 row = blockIdx.x, rank = blockIdx.y;
    const u32 start = starts[rank], width = starts[rank + 1] - start, outputs = starts[gridDim.y];
    const float* part = parts + static_cast<u64>(rank) * stride + static_cast<u64>(row) * width;
    float* target = whole + static_cast<u64>(row) * outputs + start;
    for (u32 output = threadIdx.x; output < width; output += ROW_THREADS) {
        target[output] = part[output];
    }
}
