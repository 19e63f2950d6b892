// An output drawn from a row of logits; a block of ROW_THREADS per row. Weights are integers, so that sums of them have no order: what is
// drawn is what draw.rs says, bit for bit.

// The weight of the largest logit.
constexpr u64 ONE = 1ull << 40;
constexpr u32 DIGITS = 256;

// What to draw a row's output by; the host lays out the same.
struct Draw {
    // In units of 2^-64: where the draw falls, and what share of the weights top-p keeps, zero for all.
    u64 at, top_p;
    // What min-p keeps.
    u64 least_weight;
    float temperature;
    u32 top_k;
    u32 first_change, changes;
};

// A change of one logit.
struct LogitChange {
    u32 output;
    float bias, repetition, penalty;

    __device__ __forceinline__ void apply(float* logits) const {
        float logit = logits[output] + bias;
        logit = logit > 0.0f ? logit / repetition : __fmul_rn(logit, repetition);
        logits[output] = __fsub_rn(logit, penalty);
    }
};

// A number that is larger for a larger logit, least for NaN, and the same for both zeros.
__device__ __forceinline__ u32 logit_key(float logit) {
    const u32 bits = __float_as_uint(logit + 0.0f);
    const u32 ordered = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
    return logit != logit ? 0 : ordered;
}

// The logit that a key was made of; of a NaN any.
__device__ __forceinline__ float logit_of(u32 key) {
    return __uint_as_float(key >> 31 != 0 ? key & 0x7fffffffu : ~key);
}

// Weights of a row's logits: exp((logit - largest) / temperature) in units of 2^-40, by the operations of draw.rs.
struct Weights {
    float largest;
    double temperature, largest_scaled;

    __device__ __forceinline__ Weights(float largest, float temperature)
        : largest(largest), temperature(temperature), largest_scaled(largest / this->temperature) {}

    __device__ __forceinline__ u64 of(float logit) const {
        constexpr double ROUND = 6755399441055744.0;
        if (logit == largest) {
            return ONE;
        }
        const double x = __dsub_rn(logit / temperature, largest_scaled);
        const double rounded = fma(x, 1.4426950408889634, ROUND), n = __dsub_rn(rounded, ROUND);
        const double r = fma(n, -1.9082149292705877e-10, fma(n, -0.6931471803691238, x));
        double exp = 0.0;
        constexpr double FACTORIALS[] = {
            39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0};
#pragma unroll
        for (u32 i = 0; i < 12; ++i) {
            exp = fma(exp, r, 1.0 / FACTORIALS[i]);
        }
        const u64 round_bits = __double_as_longlong(ROUND);
        const u64 exponent = static_cast<u64>(__double_as_longlong(rounded)) - round_bits + (1023 + 40);
        const double scale = __longlong_as_double(static_cast<long long>(exponent << 52));
        const u64 weight = static_cast<u64>(__double_as_longlong(fma(exp, scale, ROUND))) - round_bits;
        return x >= -29.0 ? weight : 0;
    }
};

// Outputs with larger keys, and of those with this key the first few.
struct Kept {
    u32 key, equals;
};

// The sum over a block, for all its threads.
__device__ __forceinline__ u64 block_sum(u64 value) {
    __shared__ u64 sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        sum = 0;
    }
    __syncthreads();
    atomicAdd(&sum, value);
    __syncthreads();
    return sum;
}

// The largest of a block, for all its threads.
__device__ __forceinline__ u64 block_largest(u64 value) {
    __shared__ u64 largest;
    if (threadIdx.x == 0) {
        largest = 0;
    }
    __syncthreads();
    atomicMax(&largest, value);
    __syncthreads();
    return largest;
}

// The fewest of what is kept, from the largest on, that measure at least `left`, which all of it does. Digit by digit of the key, by
// how much there is of each.
template <class Measure>
__device__ __forceinline__ Kept fewest(const float* logits, u32 outputs, Kept kept, u64 left, const Measure& measure) {
    __shared__ u64 digits[DIGITS];
    u32 key = 0, known = 0;
    for (u32 shift = 32; shift > 0;) {
        shift -= 8;
        __syncthreads();
        digits[threadIdx.x] = 0;
        __syncthreads();
        for (u32 j = threadIdx.x; j < outputs; j += ROW_THREADS) {
            const u32 own = logit_key(logits[j]);
            if (own > kept.key && (own & known) == key) {
                atomicAdd(&digits[own >> shift & 0xffu], measure(logits[j]));
            }
        }
        if (threadIdx.x == 0 && (kept.key & known) == key) {
            atomicAdd(&digits[kept.key >> shift & 0xffu], kept.equals * measure(logit_of(kept.key)));
        }
        __syncthreads();
        u32 digit = DIGITS - 1;
        for (; digit > 0 && digits[digit] < left; --digit) {
            left -= digits[digit];
        }
        key |= digit << shift;
        known |= 0xffu << shift;
    }
    const u64 each = measure(logit_of(key));
    return {key, each == 0 ? 0 : static_cast<u32>((left + each - 1) / each)};
}

// Of a thread's outputs, from `first` on, those that are left to draw from.
struct Left {
    const float* logits;
    u32 first, end;
    // Outputs before them with the key of which only the first few are kept.
    u32 equals_before;
    Kept kept;
    u64 least_weight;
    Weights weights;

    // Calls `take` with each of them and its weight.
    template <class Take>
    __device__ __forceinline__ void each(const Take& take) const {
        u32 equal = equals_before;
        for (u32 j = first; j < end; ++j) {
            const u32 key = logit_key(logits[j]);
            const bool is_kept = key > kept.key || (key == kept.key && equal++ < kept.equals);
            const u64 weight = is_kept ? weights.of(logits[j]) : 0;
            if (is_kept && weight >= least_weight) {
                take(j, weight);
            }
        }
    }
};

KERNEL draw(float* all_logits, u32 outputs, const Draw* draws, const LogitChange* changes, u32* drawn) {
    static_assert(DIGITS == ROW_THREADS, "a thread clears a digit");
    const Draw how = draws[blockIdx.x];
    float* logits = all_logits + static_cast<u64>(blockIdx.x) * outputs;
    for (u32 i = threadIdx.x; i < how.changes; i += ROW_THREADS) {
        changes[how.first_change + i].apply(logits);
    }
    __syncthreads();
    u64 rank = 0;
    for (u32 j = threadIdx.x; j < outputs; j += ROW_THREADS) {
        const u64 own = static_cast<u64>(logit_key(logits[j])) << 32 | (0xffffffffu - j);
        rank = own > rank ? own : rank;
    }
    rank = block_largest(rank);
    const u32 largest = 0xffffffffu - static_cast<u32>(rank);
    if (how.temperature == 0.0f || rank >> 32 == 0) {
        if (threadIdx.x == 0) {
            drawn[blockIdx.x] = largest;
        }
        return;
    }

    const Weights weights(logits[largest], how.temperature);
    const auto weight = [&](float logit) { return weights.of(logit); };
    Kept kept = {0, outputs};
    if (how.top_k < outputs) {
        kept = fewest(logits, outputs, kept, how.top_k, [](float) { return u64{1}; });
    }
    if (how.top_p != 0) {
        u64 sum = threadIdx.x == 0 ? kept.equals * weight(logit_of(kept.key)) : 0;
        for (u32 j = threadIdx.x; j < outputs; j += ROW_THREADS) {
            sum += logit_key(logits[j]) > kept.key ? weight(logits[j]) : 0;
        }
        sum = block_sum(sum);
        const u64 mass = __umul64hi(how.top_p, sum) + (how.top_p * sum != 0 ? 1 : 0);
        kept = fewest(logits, outputs, kept, mass > 0 ? mass : 1, weight);
    }

    // From here on a thread has neighbouring outputs, and looks at what those before it have.
    __shared__ u32 equals[ROW_THREADS];
    __shared__ u64 sums[ROW_THREADS];
    const u32 each = ceil_div(outputs, ROW_THREADS);
    const u32 first = lesser(threadIdx.x * each, outputs), end = lesser(first + each, outputs);
    u32 own_equals = 0;
    for (u32 j = first; j < end; ++j) {
        own_equals += logit_key(logits[j]) == kept.key ? 1 : 0;
    }
    equals[threadIdx.x] = own_equals;
    __syncthreads();
    u32 equals_before = 0;
    for (u32 thread = 0; thread < threadIdx.x; ++thread) {
        equals_before += equals[thread];
    }
    const Left left = {logits, first, end, equals_before, kept, how.least_weight, weights};
    u64 own_sum = 0;
    left.each([&](u32, u64 own) { own_sum += own; });
    sums[threadIdx.x] = own_sum;
    __syncthreads();
    u64 before = 0, total = 0;
    for (u32 thread = 0; thread < ROW_THREADS; ++thread) {
        before += thread < threadIdx.x ? sums[thread] : 0;
        total += sums[thread];
    }
    const u64 target = __umul64hi(how.at, total);
    if (before <= target && target < before + own_sum) {
        left.each([&](u32 j, u64 own) {
            if (before <= target && target < before + own) {
                drawn[blockIdx.x] = j;
            }
            before += own;
        });
    }
}
