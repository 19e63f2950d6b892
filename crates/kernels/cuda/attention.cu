// Attention over paged blocks: a block of threads for a row's head.
//
// Positions are taken 32 at a time, in groups that go round the warps; a warp keeps the largest score, the sum and the
// weighted values of its groups, and at the end those of the warps are put together in order. So what a row gets depends on
// its position and slots alone. A lane scores one position, then adds up the values of some dimensions.

constexpr u32 ATTENTION_WARPS = 4;
constexpr u32 MAX_HEAD_DIM = 256;

// What one warp has seen.
struct Seen {
    float largest, sum, values[MAX_HEAD_DIM / WARP];
};

template <class Value>
__device__ __forceinline__ float score(const float* query, const Value* keys, u32 head_dim) {
    float sum = 0.0f;
    for (u32 j = 0; j < head_dim; ++j) {
        sum = fmaf(query[j], to_float(keys[j]), sum);
    }
    return sum;
}

// Adds the 32 positions from `first` on, of which `count` are seen. The query is scaled.
template <class Value>
__device__ __forceinline__ void see(
    Seen& seen, const float* query, const Value* cache, const KvLayout& layout, const KvRow& row, const u32* words,
    u32 head, u32 first, u32 count) {
    const u32 lane = threadIdx.x % WARP;
    u64 keys = 0;
    float own = negative_infinity();
    if (lane < count) {
        keys = layout.keys_at(readable_block(row, words, first + lane), head, first + lane);
        own = score(query, cache + keys, layout.head_dim);
    }
    const float largest = fmaxf(seen.largest, warp_largest(own));
    const float scale = expf(seen.largest - largest), weight = lane < count ? expf(own - largest) : 0.0f;
    seen.largest = largest;
    seen.sum = fmaf(seen.sum, scale, warp_sum(weight));
    for (u32 i = 0; i < MAX_HEAD_DIM / WARP; ++i) {
        seen.values[i] *= scale;
    }
    for (u32 position = 0; position < count; ++position) {
        const float position_weight = shuffle(weight, position);
        const Value* values = cache + shuffle(keys, position) + layout.side();
#pragma unroll
        for (u32 i = 0; i < MAX_HEAD_DIM / WARP; ++i) {
            const u32 j = i * WARP + lane;
            if (j < layout.head_dim) {
                seen.values[i] = fmaf(position_weight, to_float(values[j]), seen.values[i]);
            }
        }
    }
}

template <class Value>
__device__ __forceinline__ void attend(
    const float* qkv, const Value* cache, const KvLayout& layout, const KvRow& row, const u32* words, float* out) {
    __shared__ float query[MAX_HEAD_DIM], largest[ATTENTION_WARPS], sums[ATTENTION_WARPS];
    __shared__ float values[ATTENTION_WARPS][MAX_HEAD_DIM];
    const u32 head = blockIdx.y, head_dim = layout.head_dim, seen_positions = row.position + 1;
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const float scale = 1.0f / sqrtf(static_cast<float>(head_dim));
    for (u32 j = threadIdx.x; j < head_dim; j += ATTENTION_WARPS * WARP) {
        query[j] = qkv[head * head_dim + j] * scale;
    }
    __syncthreads();
    Seen seen = {negative_infinity(), 0.0f, {}};
    for (u32 first = warp * WARP; first < seen_positions; first += ATTENTION_WARPS * WARP) {
        see(seen, query, cache, layout, row, words, head, first, lesser(WARP, seen_positions - first));
    }
    if (lane == 0) {
        largest[warp] = seen.largest;
        sums[warp] = seen.sum;
    }
#pragma unroll
    for (u32 i = 0; i < MAX_HEAD_DIM / WARP; ++i) {
        values[warp][i * WARP + lane] = seen.values[i];
    }
    __syncthreads();
    float largest_of_all = largest[0];
    for (u32 other = 1; other < ATTENTION_WARPS; ++other) {
        largest_of_all = fmaxf(largest_of_all, largest[other]);
    }
    for (u32 j = threadIdx.x; j < head_dim; j += ATTENTION_WARPS * WARP) {
        float sum = 0.0f, value = 0.0f;
        for (u32 other = 0; other < ATTENTION_WARPS; ++other) {
            // Nothing was seen by a warp whose largest score is still −∞: it weighs zero.
            const float weight = expf(largest[other] - largest_of_all);
            sum = fmaf(sums[other], weight, sum);
            value = fmaf(values[other][j], weight, value);
        }
        out[head * head_dim + j] = value / sum;
    }
}

#define ATTENTION(name, Value)                                                                                         \
    KERNEL __launch_bounds__(ATTENTION_WARPS* WARP) name(                                                              \
        const float* qkv, const KvRow* rows, const u32* words, u32 layers, u32 layer, u32 heads, u32 head_dim,         \
        const Value* cache, float* out) {                                                                              \
        const u64 width = static_cast<u64>(heads) * head_dim;                                                          \
        const KvLayout layout = {layers, layer, heads, head_dim};                                                      \
        attend(qkv + blockIdx.x * 3 * width, cache, layout, rows[blockIdx.x], words, out + blockIdx.x * width);        \
    }

ATTENTION(attention_f32, float)
ATTENTION(attention_bf16, Bf16)
