// Products of bf16 with sums in f32.
//
// The inputs are cut into chunks whose length the weight decides alone. The sum of a chunk is one chain of tiles, and chunks
// are added in order: so it is whether one warp does them all or each takes its own, and a row has the same bits in every
// launch.

// M tiles of 16 rows by N tiles of 8 outputs in a warp. Of a block's warps, CHUNK_WARPS share the chunks of the same outputs,
// ROW_WARPS and OUTPUT_WARPS have outputs of their own. STEPS_AHEAD steps are unrolled, so that their reads are under way
// together. Blocks are laid out rows first, so that weights are read once.
template <u32 M, u32 N, u32 CHUNK_WARPS, u32 ROW_WARPS, u32 OUTPUT_WARPS, u32 STEPS_AHEAD>
struct Product {
    static constexpr u32 THREADS = WARP * CHUNK_WARPS * ROW_WARPS * OUTPUT_WARPS;
    // Pairs of neighbouring outputs that a lane holds: by row tile, output tile, and upper or lower half of the rows.
    static constexpr u32 PAIRS = M * N * 2;
    static constexpr u32 OWN_PAIRS = (PAIRS + CHUNK_WARPS - 1) / CHUNK_WARPS;

    const Eight* inputs;
    const Eight* weight;
    u32 rows, output_tiles, steps, chunk_steps;
    u32 lane, chunk_warp, row_tile, output_tile;

    __device__ __forceinline__ Product(
        const Eight* inputs, const Eight* weight, u32 rows, u32 outputs, u32 steps, u32 chunk_steps)
        : inputs(inputs), weight(weight), rows(rows), output_tiles(ceil_div(outputs, 8)), steps(steps),
          chunk_steps(chunk_steps), lane(threadIdx.x % WARP), chunk_warp(threadIdx.x / WARP % CHUNK_WARPS) {
        const u32 warp = threadIdx.x / (WARP * CHUNK_WARPS);
        row_tile = (blockIdx.x * ROW_WARPS + warp % ROW_WARPS) * M;
        output_tile = (blockIdx.y * OUTPUT_WARPS + warp / ROW_WARPS) * N;
    }

    __device__ __forceinline__ Eight input(u32 m, u32 half, u32 step) const {
        const u32 tile = row_tile + m;
        if (tile * 16 + half * 8 + lane / 4 >= rows) {
            return Eight{{0, 0, 0, 0}};
        }
        return inputs[((static_cast<u64>(tile) * steps + step) * 2 + half) * WARP + lane];
    }

    __device__ __forceinline__ Eight weights(u32 n, u32 step) const {
        const u32 tile = output_tile + n;
        if (tile >= output_tiles) {
            return Eight{{0, 0, 0, 0}};
        }
        return weight[(static_cast<u64>(tile) * steps + step) * WARP + lane];
    }

    // Adds 32 inputs: as two tiles of 16, of which each lane brings a half of its eight.
    __device__ __forceinline__ void add(float (&sums)[M][N][4], u32 step) const {
        Eight of_weight[N];
#pragma unroll
        for (u32 n = 0; n < N; ++n) {
            of_weight[n] = weights(n, step);
        }
#pragma unroll
        for (u32 m = 0; m < M; ++m) {
            const Eight upper = input(m, 0, step), lower = input(m, 1, step);
#pragma unroll
            for (u32 n = 0; n < N; ++n) {
                const Eight& w = of_weight[n];
                multiply_tile(
                    sums[m][n], upper.pairs[0], lower.pairs[0], upper.pairs[1], lower.pairs[1], w.pairs[0], w.pairs[1]);
                multiply_tile(
                    sums[m][n], upper.pairs[2], lower.pairs[2], upper.pairs[3], lower.pairs[3], w.pairs[2], w.pairs[3]);
            }
        }
    }

    // Adds this round's chunks, one of each warp, in their order.
    __device__ __forceinline__ void add_chunks(
        float (&totals)[OWN_PAIRS][2], const float (&sums)[M][N][4], u32 chunks) const {
        if constexpr (CHUNK_WARPS == 1) {
#pragma unroll
            for (u32 pair = 0; pair < PAIRS; ++pair) {
                const float(&sum)[4] = sums[pair / 2 / N][pair / 2 % N];
                totals[pair][0] += sum[pair % 2 * 2];
                totals[pair][1] += sum[pair % 2 * 2 + 1];
            }
        } else {
            __shared__ float of_warps[CHUNK_WARPS][PAIRS][WARP][2];
#pragma unroll
            for (u32 pair = 0; pair < PAIRS; ++pair) {
                const float(&sum)[4] = sums[pair / 2 / N][pair / 2 % N];
                of_warps[chunk_warp][pair][lane][0] = sum[pair % 2 * 2];
                of_warps[chunk_warp][pair][lane][1] = sum[pair % 2 * 2 + 1];
            }
            __syncthreads();
#pragma unroll
            for (u32 own = 0; own < OWN_PAIRS; ++own) {
                const u32 pair = own * CHUNK_WARPS + chunk_warp;
                for (u32 warp = 0; pair < PAIRS && warp < chunks; ++warp) {
                    totals[own][0] += of_warps[warp][pair][lane][0];
                    totals[own][1] += of_warps[warp][pair][lane][1];
                }
            }
            __syncthreads();
        }
    }

    template <class Epilogue>
    __device__ __forceinline__ void run(const Epilogue& epilogue) const {
        float totals[OWN_PAIRS][2] = {};
        const u32 chunks = ceil_div(steps, chunk_steps);
        for (u32 first = 0; first < chunks; first += CHUNK_WARPS) {
            float sums[M][N][4] = {};
            const u32 start = lesser((first + chunk_warp) * chunk_steps, steps), end = lesser(start + chunk_steps, steps);
#pragma unroll STEPS_AHEAD
            for (u32 step = start; step < end; ++step) {
                add(sums, step);
            }
            add_chunks(totals, sums, lesser(CHUNK_WARPS, chunks - first));
        }
#pragma unroll
        for (u32 own = 0; own < OWN_PAIRS; ++own) {
            const u32 pair = own * CHUNK_WARPS + chunk_warp;
            if (pair < PAIRS) {
                const u32 row = (row_tile + pair / 2 / N) * 16 + pair % 2 * 8 + lane / 4;
                const u32 column = (output_tile + pair / 2 % N) * 8 + lane % 4 * 2;
                epilogue.pair(row, column, totals[own][0], totals[own][1]);
            }
        }
    }
};

// Few rows: weights are what it takes to read, so every warp reads others.
using Narrow = Product<1, 2, 8, 1, 1, 4>;
// More rows than one tile has: each weight is used for four.
using Medium = Product<4, 4, 4, 1, 1, 2>;
// Many rows: 128 by 128 outputs in a block, each warp all chunks.
using Wide = Product<4, 4, 1, 2, 4, 1>;

#define PRODUCT(name, Shape, Epilogue, Out)                                                                            \
    KERNEL __launch_bounds__(Shape::THREADS) name(                                                                     \
        const Eight* inputs, const Eight* weight, u32 rows, u32 outputs, u32 steps, u32 chunk_steps, Out* out) {       \
        Shape(inputs, weight, rows, outputs, steps, chunk_steps).run(Epilogue{out, rows, outputs});                    \
    }

PRODUCT(narrow_store, Narrow, Store, float)
PRODUCT(narrow_gate, Narrow, Gate, float)
PRODUCT(narrow_largest, Narrow, Largest, u64)
PRODUCT(medium_store, Medium, Store, float)
PRODUCT(medium_gate, Medium, Gate, float)
PRODUCT(medium_largest, Medium, Largest, u64)
PRODUCT(wide_store, Wide, Store, float)
PRODUCT(wide_gate, Wide, Gate, float)
PRODUCT(wide_largest, Wide, Largest, u64)
