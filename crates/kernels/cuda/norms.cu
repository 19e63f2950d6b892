// Norms over a row, with what comes before and after them. A block of ROW_THREADS per row; thread t takes elements t,
// t + ROW_THREADS and so on.

// What to multiply a row of this sum of squares by.
__device__ __forceinline__ float norm_scale(float squares, u32 width, float eps) {
    return 1.0f / sqrtf(squares / static_cast<float>(width) + eps);
}

// x += residual; gives the scale of the norm of the result.
__device__ __forceinline__ float add_residual(float* x, const float* residual, u32 width, float eps) {
    float squares = 0.0f;
    for (u32 j = threadIdx.x; j < width; j += ROW_THREADS) {
        x[j] += residual[j];
        squares += x[j] * x[j];
    }
    return norm_scale(row_sum(squares), width, eps);
}

KERNEL rms_norm(const float* x, const u32* rows, const float* weight, float eps, u32 width, float* out) {
    const float* source = x + row_at(rows, blockIdx.x) * width;
    float* target = out + static_cast<u64>(blockIdx.x) * width;
    float squares = 0.0f;
    for (u32 j = threadIdx.x; j < width; j += ROW_THREADS) {
        squares += source[j] * source[j];
    }
    const float scale = norm_scale(row_sum(squares), width, eps);
    for (u32 j = threadIdx.x; j < width; j += ROW_THREADS) {
        target[j] = source[j] * scale * weight[j];
    }
}

KERNEL add_rms_norm(float* x, const float* residual, const float* weight, float eps, u32 width) {
    const u64 first = static_cast<u64>(blockIdx.x) * width;
    const float scale = add_residual(x + first, residual + first, width, eps);
    for (u32 j = threadIdx.x; j < width; j += ROW_THREADS) {
        x[first + j] *= scale * weight[j];
    }
}

KERNEL add_norm_norm(
    float* x, const float* residual, const float* weight, const float* next, float eps, u32 width, float* out) {
    const u64 first = static_cast<u64>(blockIdx.x) * width;
    const float scale = add_residual(x + first, residual + first, width, eps);
    float squares = 0.0f;
    for (u32 j = threadIdx.x; j < width; j += ROW_THREADS) {
        x[first + j] *= scale * weight[j];
        squares += x[first + j] * x[first + j];
    }
    const float next_scale = norm_scale(row_sum(squares), width, eps);
    for (u32 j = threadIdx.x; j < width; j += ROW_THREADS) {
        out[first + j] = x[first + j] * next_scale * next[j];
    }
}

// How a row's latent changed, in the order of the host's LatentChange.
struct Change {
    float difference_squared, current_squared, previous_squared, dot;
};

// By what change a row stops; the host lays out the same. Its own rule in the same numbers, bit for bit: what the host learns
// later of a row must be what happened here.
struct Stop {
    enum Kind : u32 { NEVER, RELATIVE_DIFFERENCE, COSINE_DISTANCE };

    double limit;
    Kind kind;
    u32 unused;

    __device__ __forceinline__ bool is_met(const Change& change) const {
        const double current = sqrt(static_cast<double>(change.current_squared));
        if (kind == RELATIVE_DIFFERENCE) {
            return sqrt(static_cast<double>(change.difference_squared)) / current < limit;
        }
        const double sizes = current * sqrt(static_cast<double>(change.previous_squared));
        return kind == COSINE_DISTANCE && 1.0 - static_cast<double>(change.dot) / sizes < limit;
    }
};

// Rows whose flag is not zero have stopped before. Without `stops` none stops now.
KERNEL add_norm_commit(
    float* x, const float* residual, const float* weight, float eps, u32 width, float* latents, const u32* rows,
    float* flags, const Stop* stops, Change* changes) {
    const u64 first = static_cast<u64>(blockIdx.x) * width;
    float* latent = latents + static_cast<u64>(rows[blockIdx.x]) * width;
    float* flag = flags + rows[blockIdx.x];
    const bool has_stopped = *flag != 0.0f;
    const float scale = add_residual(x + first, residual + first, width, eps);
    Change change = {0.0f, 0.0f, 0.0f, 0.0f};
    if (has_stopped) {
        if (threadIdx.x == 0) {
            changes[blockIdx.x] = change;
        }
        return;
    }
    for (u32 j = threadIdx.x; j < width; j += ROW_THREADS) {
        const float current = x[first + j] * scale * weight[j], previous = latent[j];
        change.difference_squared += (current - previous) * (current - previous);
        change.current_squared += current * current;
        change.previous_squared += previous * previous;
        change.dot += current * previous;
        latent[j] = current;
    }
    change.difference_squared = row_sum(change.difference_squared);
    change.current_squared = row_sum(change.current_squared);
    change.previous_squared = row_sum(change.previous_squared);
    change.dot = row_sum(change.dot);
    if (threadIdx.x == 0) {
        changes[blockIdx.x] = change;
        if (stops != nullptr && stops[blockIdx.x].is_met(change)) {
            *flag = 1.0f;
        }
    }
}
