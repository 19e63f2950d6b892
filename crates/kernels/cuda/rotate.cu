// Rotary positions, and keys and values on their way into the cache, where rows that have stopped write nothing. A block per row,
// a thread per pair.

template <class Value>
__device__ __forceinline__ void rotate_and_store(
    float* qkv, const float* bias, const float* rotary, const KvRow& row, bool has_stopped, const KvLayout& layout,
    Value* cache) {
    const u32 head_dim = layout.head_dim, width = layout.heads * head_dim;
    const float* angles = rotary + static_cast<u64>(row.position) * head_dim;
    for (u32 j = threadIdx.x * 2; j < 3 * width; j += ROW_THREADS * 2) {
        float x = qkv[j], y = qkv[j + 1];
        if (j < 2 * width) {
            if (bias != nullptr) {
                x += bias[j];
                y += bias[j + 1];
            }
            const float cosine = angles[j % head_dim], sine = angles[j % head_dim + 1];
            const float turned = fmaf(x, cosine, -(y * sine));
            y = fmaf(x, sine, y * cosine);
            x = turned;
        }
        if (j < width) {
            qkv[j] = x;
            qkv[j + 1] = y;
            continue;
        }
        if (has_stopped) {
            return;
        }
        const u32 head = j % width / head_dim, at = j % head_dim;
        if (j < 2 * width) {
            Value* to = cache + layout.keys_at(row.written, head, row.position) + at;
            store(to, x);
            store(to + 1, y);
        } else {
            Value* to = cache + layout.keys_at(row.written, head, 0) + layout.side();
            store_values(to, row.position, at, head_dim, x, y);
        }
    }
}

#define ROTATE(name, Value)                                                                                            \
    KERNEL name(                                                                                                       \
        float* qkv, const float* bias, const float* rotary, const KvRow* rows, const float* flags,                     \
        const u32* latents, u32 layers, u32 layer, u32 heads, u32 head_dim, Value* cache) {                            \
        const KvLayout layout = {layers, layer, heads, head_dim};                                                      \
        float* row = qkv + static_cast<u64>(blockIdx.x) * 3 * heads * head_dim;                                        \
        const bool has_stopped = flags != nullptr && flags[latents[blockIdx.x]] != 0.0f;                               \
        rotate_and_store(row, bias, rotary, rows[blockIdx.x], has_stopped, layout, cache);                             \
    }

ROTATE(rotate_and_store_f32, float)
ROTATE(rotate_and_store_bf16, Bf16)
