// Attention in bf16 by the matrix instruction: a block of threads for a head of a tile, which is up to 16 rows that follow on each
// other in the launch, are of one lane and read the same slots. As in attention.cu what a row gets does not depend on the others: of a
// position that it does not see the weight is zero, which changes no sum of finite values.
//
// Lane 4g + t has rows g and g + 8 of scores and results, as of every product of a tile, and of each eight columns 2t and 2t + 1.

constexpr u32 TILE_ROWS = 16;

struct Tile {
    u32 first, rows;
};

constexpr u64 NOWHERE = ~static_cast<u64>(0);

__device__ __forceinline__ u32 bf16_pair(float low, float high) { return bf16_bits(low) | bf16_bits(high) << 16; }

// The keys at `at` in dimensions j and j + 1; zeros where there are none.
__device__ __forceinline__ u32 keys_pair(const Bf16* cache, u64 at, u32 j, u32 head_dim) {
    return at == NOWHERE || j >= head_dim ? 0 : *reinterpret_cast<const u32*>(cache + at + j);
}

// The values of two neighbouring positions in dimension j, which lie side by side if both are in one block.
__device__ __forceinline__ u32 values_pair(const Bf16* cache, u64 first, u64 second, u32 j, u32 head_dim) {
    if (j >= head_dim || first == NOWHERE) {
        return 0;
    }
    const Bf16* values = cache + j * BLOCK_POSITIONS;
    if (second == first + 1) {
        return *reinterpret_cast<const u32*>(values + first);
    }
    return values[first].bits | (second == NOWHERE ? 0 : static_cast<u32>(values[second].bits) << 16);
}

// Of heads of up to DIMS dimensions.
template <u32 DIMS>
struct TileAttention {
    // Of a row of queries, with some that nobody uses, so that a warp's lanes read from different banks.
    static constexpr u32 QUERY_PAIRS = DIMS / 2 + 4;

    const KvLayout layout;
    const Bf16* cache;
    u32 head, lane, warp;
    // How many positions this lane's two rows see, and any row of the tile.
    u32 seen[2], most;
    // Of what the warp has seen: the largest scores of both rows, this lane's share of the sums, and weighted values.
    float largest[2] = {negative_infinity(), negative_infinity()}, sums[2] = {}, values[DIMS / 8][4] = {};

    __device__ __forceinline__ TileAttention(
        const KvLayout& layout, const Bf16* cache, const KvRow* rows, const Tile& tile)
        : layout(layout), cache(cache), head(blockIdx.y), lane(threadIdx.x % WARP), warp(threadIdx.x / WARP), seen{},
          most(0) {
        for (u32 row = 0; row < tile.rows; ++row) {
            const u32 positions = rows[tile.first + row].position + 1;
            most = most < positions ? positions : most;
        }
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            const u32 row = half * 8 + lane / 4;
            seen[half] = row < tile.rows ? rows[tile.first + row].position + 1 : 0;
        }
    }

    // Adds 32 positions from `first` on. `row` is any of the tile.
    __device__ __forceinline__ void see(
        const u32 (&queries)[TILE_ROWS][QUERY_PAIRS], const KvRow& row, const u32* words, u32 first) {
        const u32 group = lane / 4, pair = lane % 4 * 2;
        const u64 block = first + lane < most ? readable_block(row, words, first + lane) : NOWHERE;
        float scores[4][4] = {};
        u64 keys[4];
#pragma unroll
        for (u32 n = 0; n < 4; ++n) {
            const u32 at = n * 8 + group;
            const u64 of_position = shuffle(block, at);
            keys[n] = of_position == NOWHERE ? NOWHERE : layout.keys_at(of_position, head, first + at);
        }
#pragma unroll
        for (u32 j = 0; j < DIMS; j += 16) {
            if (j >= layout.head_dim) {
                break;
            }
            const u32 at = j / 2 + lane % 4;
            const u32 upper = queries[group][at], lower = queries[group + 8][at];
            const u32 upper_next = queries[group][at + 4], lower_next = queries[group + 8][at + 4];
#pragma unroll
            for (u32 n = 0; n < 4; ++n) {
                const u32 these = keys_pair(cache, keys[n], j + pair, layout.head_dim);
                const u32 next = keys_pair(cache, keys[n], j + pair + 8, layout.head_dim);
                multiply_tile(scores[n], upper, lower, upper_next, lower_next, these, next);
            }
        }
        weigh(scores, first);
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            // Weights are bf16 already.
            const float(&near)[4] = scores[half * 2], (&far)[4] = scores[half * 2 + 1];
            const u32 upper = bf16_pair(near[0], near[1]), lower = bf16_pair(near[2], near[3]);
            const u32 upper_next = bf16_pair(far[0], far[1]), lower_next = bf16_pair(far[2], far[3]);
            const u64 at[4] = {
                values_at(block, first, half * 16 + pair), values_at(block, first, half * 16 + pair + 1),
                values_at(block, first, half * 16 + pair + 8), values_at(block, first, half * 16 + pair + 9)};
#pragma unroll
            for (u32 n = 0; n < DIMS / 8; ++n) {
                if (n * 8 >= layout.head_dim) {
                    break;
                }
                const u32 these = values_pair(cache, at[0], at[1], n * 8 + group, layout.head_dim);
                const u32 next = values_pair(cache, at[2], at[3], n * 8 + group, layout.head_dim);
                multiply_tile(values[n], upper, lower, upper_next, lower_next, these, next);
            }
        }
    }

    // Where the values of a position are, of 32 from `first` on, whose blocks the lanes have.
    __device__ __forceinline__ u64 values_at(u64 block, u32 first, u32 position) const {
        const u64 of_position = shuffle(block, position);
        return of_position == NOWHERE
                   ? NOWHERE
                   : layout.keys_at(of_position, head, 0) + layout.side() + (first + position) % BLOCK_POSITIONS;
    }

    // Makes scores weights, relative to the largest score so far. A row's place in the tile decides which of the halves it is in, and the
    // compiler unrolls them, so what it could contract in the one and not in the other is written out.
    __device__ __forceinline__ void weigh(float (&scores)[4][4], u32 first) {
        const float scale = 1.0f / sqrtf(static_cast<float>(layout.head_dim));
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            float now_largest = largest[half];
#pragma unroll
            for (u32 i = 0; i < 8; ++i) {
                float& score = scores[i / 2][half * 2 + i % 2];
                const u32 position = first + i / 2 * 8 + lane % 4 * 2 + i % 2;
                score = position < seen[half] ? __fmul_rn(score, scale) : negative_infinity();
                now_largest = fmaxf(now_largest, score);
            }
            now_largest = fmaxf(now_largest, shuffle_xor(now_largest, 1));
            now_largest = fmaxf(now_largest, shuffle_xor(now_largest, 2));
            const float base = weight_base(now_largest), decay = expf(largest[half] - base);
            largest[half] = now_largest;
            sums[half] = __fmul_rn(sums[half], decay);
#pragma unroll
            for (u32 i = 0; i < 8; ++i) {
                float& score = scores[i / 2][half * 2 + i % 2];
                score = __uint_as_float(bf16_bits(expf(__fsub_rn(score, base))) << 16);
                sums[half] = __fadd_rn(sums[half], score);
            }
#pragma unroll
            for (u32 n = 0; n < DIMS / 8; ++n) {
                values[n][half * 2] *= decay;
                values[n][half * 2 + 1] *= decay;
            }
        }
    }

    // Puts together what the warps have seen, and writes it to the tile's rows of `out`.
    __device__ __forceinline__ void write(const Tile& tile, float* out) {
        __shared__ float of_largest[ATTENTION_WARPS][TILE_ROWS], of_sums[ATTENTION_WARPS][TILE_ROWS];
        __shared__ float of_all[TILE_ROWS][DIMS];
        const u32 head_dim = layout.head_dim;
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            const u32 row = half * 8 + lane / 4;
            sums[half] += shuffle_xor(sums[half], 1);
            sums[half] += shuffle_xor(sums[half], 2);
            if (lane % 4 == 0) {
                of_largest[warp][row] = largest[half];
                of_sums[warp][row] = sums[half];
            }
        }
        __syncthreads();
        for (u32 turn = 0; turn < ATTENTION_WARPS; ++turn) {
            if (turn == warp) {
#pragma unroll
                for (u32 half = 0; half < 2; ++half) {
                    const u32 row = half * 8 + lane / 4;
                    const float weight = weight_of(of_largest, turn, row);
#pragma unroll
                    for (u32 i = 0; i < DIMS / 4; ++i) {
                        const u32 j = i / 2 * 8 + lane % 4 * 2 + i % 2;
                        const float value = values[i / 2][half * 2 + i % 2];
                        of_all[row][j] = turn == 0 ? value * weight : fmaf(value, weight, of_all[row][j]);
                    }
                }
            }
            __syncthreads();
        }
        for (u32 i = threadIdx.x; i < tile.rows * head_dim; i += ATTENTION_WARPS * WARP) {
            const u32 row = i / head_dim, j = i % head_dim;
            float sum = 0.0f;
            for (u32 other = 0; other < ATTENTION_WARPS; ++other) {
                sum = fmaf(of_sums[other][row], weight_of(of_largest, other, row), sum);
            }
            out[(static_cast<u64>(tile.first + row) * layout.heads + head) * head_dim + j] = of_all[row][j] / sum;
        }
    }

    // Of what a warp has seen beside the others.
    __device__ __forceinline__ float weight_of(
        const float (&of_largest)[ATTENTION_WARPS][TILE_ROWS], u32 of_warp, u32 row) const {
        float largest_of_all = of_largest[0][row];
        for (u32 other = 1; other < ATTENTION_WARPS; ++other) {
            largest_of_all = fmaxf(largest_of_all, of_largest[other][row]);
        }
        return expf(of_largest[of_warp][row] - weight_base(largest_of_all));
    }
};

template <u32 DIMS>
__device__ __forceinline__ void attend_tile(
    const float* qkv, const KvRow* rows, const u32* words, const Tile& tile, const KvLayout& layout, const Bf16* cache,
    float* out) {
    __shared__ u32 queries[TILE_ROWS][TileAttention<DIMS>::QUERY_PAIRS];
    TileAttention<DIMS> attention(layout, cache, rows, tile);
    for (u32 i = threadIdx.x; i < TILE_ROWS * DIMS / 2; i += ATTENTION_WARPS * WARP) {
        const u32 row = i / (DIMS / 2), j = i % (DIMS / 2) * 2;
        u32 pair = 0;
        if (row < tile.rows && j < layout.head_dim) {
            const u64 of_row = static_cast<u64>(tile.first + row) * 3 * layout.heads + attention.head;
            const float* query = qkv + of_row * layout.head_dim + j;
            pair = bf16_pair(query[0], query[1]);
        }
        queries[row][j / 2] = pair;
    }
    __syncthreads();
    for (u32 first = attention.warp * WARP; first < attention.most; first += ATTENTION_WARPS * WARP) {
        attention.see(queries, rows[tile.first], words, first);
    }
    attention.write(tile, out);
}

#define TILES(name, DIMS)                                                                                              \
    KERNEL __launch_bounds__(ATTENTION_WARPS* WARP) name(                                                              \
        const float* qkv, const KvRow* rows, const u32* words, const Tile* tiles, u32 layers, u32 layer, u32 heads,    \
        u32 head_dim, const Bf16* cache, float* out) {                                                                 \
        const KvLayout layout = {layers, layer, heads, head_dim};                                                      \
        attend_tile<DIMS>(qkv, rows, words, tiles[blockIdx.x], layout, cache, out);                                    \
    }

TILES(attention_bf16_96, 96)
TILES(attention_bf16_256, MAX_HEAD_DIM)
