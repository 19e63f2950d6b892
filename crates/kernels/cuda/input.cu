// The inputs of a product, gathered from one or two buffers and laid out as the product reads them.

// Row i of the input is row rows[i] of `first`, `first_width` wide, then that of `second`, up to `inputs` in all.
struct Input {
    const float* first;
    const float* second;
    const u32* rows;
    u32 first_width, inputs, count;

    // Zero beyond the last row and the last input.
    __device__ __forceinline__ float at(u32 row, u32 input) const {
        if (row >= count || input >= inputs) {
            return 0.0f;
        }
        const u64 source = row_at(rows, row);
        return input < first_width ? first[source * first_width + input]
                                   : second[source * (inputs - first_width) + input - first_width];
    }
};

// Eight bf16 values.
struct alignas(16) Eight {
    u32 pairs[4];
};

// Lays inputs out by [16 rows][32 inputs][upper, lower half][lane][8 values]: lane 4g + t holds row g (or g + 8) at inputs
// 8t to 8t + 7, so that a warp reads 512 bytes in one piece. A thread per lane.
KERNEL prepare_bf16(
    const float* first, const float* second, const u32* rows, u32 first_width, u32 inputs, u32 count, Eight* out) {
    const Input input = {first, second, rows, first_width, inputs, count};
    const u32 steps = ceil_div(inputs, 32), tiles = ceil_div(count, 16);
    const u64 i = static_cast<u64>(blockIdx.x) * ROW_THREADS + threadIdx.x;
    if (i >= static_cast<u64>(tiles) * steps * 64) {
        return;
    }
    const u32 lane = i % 32, half = i / 32 % 2, step = i / 64 % steps, tile = i / 64 / steps;
    const u32 row = tile * 16 + half * 8 + lane / 4, at = step * 32 + lane % 4 * 8;
    Eight values;
    for (u32 pair = 0; pair < 4; ++pair) {
        const float low = input.at(row, at + 2 * pair), high = input.at(row, at + 2 * pair + 1);
        values.pairs[pair] = bf16_bits(low) | bf16_bits(high) << 16;
    }
    out[i] = values;
}

// Lays inputs out by [rows][inputs]. A thread per value.
KERNEL prepare_f32(
    const float* first, const float* second, const u32* rows, u32 first_width, u32 inputs, u32 count, float* out) {
    const Input input = {first, second, rows, first_width, inputs, count};
    const u64 i = static_cast<u64>(blockIdx.x) * ROW_THREADS + threadIdx.x;
    if (i < static_cast<u64>(count) * inputs) {
        out[i] = input.at(i / inputs, i % inputs);
    }
}
