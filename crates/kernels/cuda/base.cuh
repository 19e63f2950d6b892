// Numbers and sums. Every sum runs in an order that its length alone decides, so a row's bits do not depend on what else
// is in a launch.

constexpr u32 WARP = 32;
// Threads of a block that works on one row.
constexpr u32 ROW_THREADS = 256;
// Positions of a K/V block.
constexpr u32 BLOCK_POSITIONS = 16;

// A value as 16 bits that stand for the upper half of an f32.
struct Bf16 {
    u16 bits;
};

__device__ __forceinline__ float negative_infinity() { return __uint_as_float(0xff800000u); }

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(Bf16 value) { return __uint_as_float(static_cast<u32>(value.bits) << 16); }

// To the nearest, ties to even; a NaN stays one.
__device__ __forceinline__ u32 bf16_bits(float value) {
    const u32 bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return bits >> 16 | 0x40u;
    }
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

__device__ __forceinline__ void store(float* to, float value) { *to = value; }
__device__ __forceinline__ void store(Bf16* to, float value) { to->bits = static_cast<u16>(bf16_bits(value)); }

__device__ __forceinline__ u32 ceil_div(u32 a, u32 b) { return (a + b - 1) / b; }
__device__ __forceinline__ u32 lesser(u32 a, u32 b) { return a < b ? a : b; }

// The row of a buffer behind row i of a launch; without a list they are the same.
__device__ __forceinline__ u64 row_at(const u32* rows, u32 i) { return rows == nullptr ? i : rows[i]; }

// The sum over a warp, for all its lanes.
__device__ __forceinline__ float warp_sum(float value) {
    for (int mask = 16; mask > 0; mask /= 2) {
        value += shuffle_xor(value, mask);
    }
    return value;
}

// The largest of a warp, for all its lanes.
__device__ __forceinline__ float warp_largest(float value) {
    for (int mask = 16; mask > 0; mask /= 2) {
        value = fmaxf(value, shuffle_xor(value, mask));
    }
    return value;
}

// The sum over a block of ROW_THREADS, for all its threads.
__device__ __forceinline__ float row_sum(float value) {
    __shared__ float of_warps[ROW_THREADS / WARP];
    value = warp_sum(value);
    // Nobody may still read what an earlier sum left.
    __syncthreads();
    if (threadIdx.x % WARP == 0) {
        of_warps[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    float sum = 0.0f;
    for (u32 warp = 0; warp < ROW_THREADS / WARP; ++warp) {
        sum += of_warps[warp];
    }
    return sum;
}
