// Weights, from rows as a checkpoint stores them.

// Types of stored values.
constexpr u32 STORED_F32 = 0, STORED_F16 = 1, STORED_BF16 = 2;

__device__ __forceinline__ float f16_to_float(u32 bits) {
    const u32 sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;
    if (rest >= 0x7c00u) {
        return __uint_as_float(sign | 0x7f800000u | (rest & 0x03ffu) << 13);
    }
    // Exponent and fraction stand where those of an f32 do, but for the bias: what it is short of, a power of two makes up,
    // in denormals too.
    const float magnitude = __uint_as_float(rest << 13) * __uint_as_float((127 + 127 - 15) << 23);
    return __uint_as_float(sign | __float_as_uint(magnitude));
}

// Rows that a device was sent, in the order in which they are stored: row i of `slice` is row `first` + i of the weight.
struct Slice {
    const void* slice;
    u32 type, inputs, first;
    // Of a gated weight the number of gates, which come before their ups; else 0.
    u32 gates;

    __device__ __forceinline__ float at(u32 row, u32 input) const {
        const u64 i = static_cast<u64>(row) * inputs + input;
        if (type == STORED_F32) {
            return static_cast<const float*>(slice)[i];
        }
        const u32 bits = static_cast<const u16*>(slice)[i];
        return type == STORED_BF16 ? __uint_as_float(bits << 16) : f16_to_float(bits);
    }

    // The row of the packed weight: there a gate stands before its up.
    __device__ __forceinline__ u32 packed_row(u32 row) const {
        const u32 stored = first + row;
        if (gates == 0) {
            return stored;
        }
        return stored < gates ? 2 * stored : 2 * (stored - gates) + 1;
    }
};

// `[8 outputs][32 inputs][lane][8 values]`: lane 4g + t holds output g at inputs 8t to 8t + 7. What lies beyond the last
// output and input is left zero. A block per row.
KERNEL pack_bf16(const void* slice, u32 type, u32 inputs, u32 first, u32 gates, Eight* out) {
    const Slice rows = {slice, type, inputs, first, gates};
    const u32 row = rows.packed_row(blockIdx.x), steps = ceil_div(inputs, 32);
    for (u32 eight = threadIdx.x; eight < ceil_div(inputs, 8); eight += ROW_THREADS) {
        Eight values;
        for (u32 pair = 0; pair < 4; ++pair) {
            const u32 at = 8 * eight + 2 * pair;
            const float low = at < inputs ? rows.at(blockIdx.x, at) : 0.0f;
            const float high = at + 1 < inputs ? rows.at(blockIdx.x, at + 1) : 0.0f;
            values.pairs[pair] = bf16_bits(low) | bf16_bits(high) << 16;
        }
        const u32 lane = row % 8 * 4 + eight % 4;
        out[(static_cast<u64>(row / 8) * steps + eight / 4) * WARP + lane] = values;
    }
}

// `[outputs][inputs]`. A block per row.
KERNEL pack_f32(const void* slice, u32 type, u32 inputs, u32 first, u32 gates, float* out) {
    const Slice rows = {slice, type, inputs, first, gates};
    float* target = out + static_cast<u64>(rows.packed_row(blockIdx.x)) * inputs;
    for (u32 input = threadIdx.x; input < inputs; input += ROW_THREADS) {
        target[input] = rows.at(blockIdx.x, input);
    }
}
