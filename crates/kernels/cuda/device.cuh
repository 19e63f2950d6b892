// What only a device has: shuffles within a warp and its matrix instruction. emulation/device.hpp has the same for tests.

__device__ __forceinline__ float shuffle(float value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
__device__ __forceinline__ u64 shuffle(u64 value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
__device__ __forceinline__ float shuffle_xor(float value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
}
__device__ __forceinline__ u64 shuffle_xor(u64 value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
}

// sum += a · b for a tile of 16 rows, 8 columns and 16 inputs of pairs of bf16, by a whole warp. Lane 4g + t holds of a
// rows g and g + 8, inputs 2t and 2t + 8 with their neighbours; of b column g and the same inputs; of the sum rows g (first
// two) and g + 8, columns 2t and 2t + 1.
__device__ __forceinline__ void multiply_tile(float (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
