// Products in f32: every output is one chain of multiply-adds over the inputs.

// Rows and outputs of a block, and inputs that it brings into shared memory at a time.
constexpr u32 SIDE = 32;

// Rows of `from` ([count, inputs]) from `first` on, at SIDE inputs from `input` on; zero beyond.
__device__ __forceinline__ void bring(
    float (&to)[SIDE][SIDE + 1], const float* from, u32 first, u32 count, u32 input, u32 inputs) {
    for (u32 i = threadIdx.x; i < SIDE * SIDE; i += ROW_THREADS) {
        const u32 row = first + i / SIDE, at = input + i % SIDE;
        to[i / SIDE][i % SIDE] = row < count && at < inputs ? from[static_cast<u64>(row) * inputs + at] : 0.0f;
    }
}

// A thread has two rows, 16 apart, of two neighbouring outputs.
template <class Epilogue>
__device__ __forceinline__ void product_f32(
    const float* x, const float* weight, u32 rows, u32 outputs, u32 inputs, const Epilogue& epilogue) {
    __shared__ float of_rows[SIDE][SIDE + 1], of_outputs[SIDE][SIDE + 1];
    const u32 first_row = blockIdx.x * SIDE, first_output = blockIdx.y * SIDE;
    const u32 pair = threadIdx.x % 16 * 2, row = threadIdx.x / 16;
    float sums[2][2] = {};
    for (u32 input = 0; input < inputs; input += SIDE) {
        bring(of_rows, x, first_row, rows, input, inputs);
        bring(of_outputs, weight, first_output, outputs, input, inputs);
        __syncthreads();
        for (u32 k = 0; k < SIDE; ++k) {
            for (u32 half = 0; half < 2; ++half) {
                for (u32 output = 0; output < 2; ++output) {
                    sums[half][output] =
                        fmaf(of_outputs[pair + output][k], of_rows[row + half * 16][k], sums[half][output]);
                }
            }
        }
        __syncthreads();
    }
    for (u32 half = 0; half < 2; ++half) {
        epilogue.pair(first_row + row + half * 16, first_output + pair, sums[half][0], sums[half][1]);
    }
}

#define PRODUCT_F32(name, Epilogue, Out)                                                                               \
    KERNEL __launch_bounds__(ROW_THREADS) name(                                                                        \
        const float* x, const float* weight, u32 rows, u32 outputs, u32 inputs, Out* out) {                            \
        product_f32(x, weight, rows, outputs, inputs, Epilogue{out, rows, outputs});                                   \
    }

PRODUCT_F32(f32_store, Store, float)
PRODUCT_F32(f32_gate, Gate, float)
PRODUCT_F32(f32_largest, Largest, u64)
