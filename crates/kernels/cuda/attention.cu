// Attention over paged blocks.
//
// Positions are taken 32 at a time, in groups that go round the warps; a warp keeps the largest score, the sum and the
// weighted values of its groups, and at the end those of the warps are put together in order. So what a row gets depends on
// its position and slots alone.

constexpr u32 ATTENTION_WARPS = 4;
constexpr u32 MAX_HEAD_DIM = 256;

// What weights are relative to: where nothing was seen yet all of them are zero.
__device__ __forceinline__ float weight_base(float largest) { return largest == negative_infinity() ? 0.0f : largest; }

// What one warp has seen.
struct Seen {
    float largest, sum, values[MAX_HEAD_DIM / WARP];
};

// Adds the 32 positions from `first` on, of which `count` are seen. The query is scaled. A lane scores one position, then adds up the
// values of some dimensions.
__device__ __forceinline__ void see(
    Seen& seen, const float* query, const float* cache, const KvLayout& layout, const KvRow& row, const u32* words,
    u32 head, u32 first, u32 count) {
    const u32 lane = threadIdx.x % WARP;
    u64 keys = 0;
    float own = negative_infinity();
    if (lane < count) {
        keys = layout.keys_at(readable_block(row, words, first + lane), head, first + lane);
        own = 0.0f;
        for (u32 j = 0; j < layout.head_dim; ++j) {
            own = fmaf(query[j], cache[keys + j], own);
        }
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
        const float* values = cache + shuffle(keys, position) + layout.side();
#pragma unroll
        for (u32 i = 0; i < MAX_HEAD_DIM / WARP; ++i) {
            const u32 j = i * WARP + lane;
            if (j < layout.head_dim) {
                seen.values[i] = fmaf(position_weight, values[j], seen.values[i]);
            }
        }
    }
}

// In f32: a block of threads for a row's head.
KERNEL __launch_bounds__(ATTENTION_WARPS* WARP) attention_f32(
    const float* qkv, const KvRow* rows, const u32* words, u32 layers, u32 layer, u32 heads, u32 head_dim,
    const float* cache, float* out) {
    __shared__ float query[MAX_HEAD_DIM], largest[ATTENTION_WARPS], sums[ATTENTION_WARPS];
    __shared__ float values[ATTENTION_WARPS][MAX_HEAD_DIM];
    const KvLayout layout = {layers, layer, heads, head_dim};
    const KvRow& row = rows[blockIdx.x];
    const u64 width = static_cast<u64>(heads) * head_dim;
    const u32 head = blockIdx.y, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const float scale = 1.0f / sqrtf(static_cast<float>(head_dim));
    for (u32 j = threadIdx.x; j < head_dim; j += ATTENTION_WARPS * WARP) {
        query[j] = qkv[blockIdx.x * 3 * width + head * head_dim + j] * scale;
    }
    __syncthreads();
    Seen seen = {negative_infinity(), 0.0f, {}};
    for (u32 first = warp * WARP; first <= row.position; first += ATTENTION_WARPS * WARP) {
        see(seen, query, cache, layout, row, words, head, first, lesser(WARP, row.position + 1 - first));
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
        out[blockIdx.x * width + head * head_dim + j] = value / sum;
    }
}
