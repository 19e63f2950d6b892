// What becomes of a product's outputs. They come in pairs of neighbours, by all threads of a warp together; those that do
// not exist come too.

struct Store {
    float* out;
    u32 rows, outputs;

    __device__ __forceinline__ void pair(u32 row, u32 column, float first, float second) const {
        if (row >= rows) {
            return;
        }
        float* to = out + static_cast<u64>(row) * outputs + column;
        if (column < outputs) {
            to[0] = first;
        }
        if (column + 1 < outputs) {
            to[1] = second;
        }
    }
};

// Outputs 2j and 2j + 1 are gate and up of column j.
struct Gate {
    float* out;
    u32 rows, outputs;

    __device__ __forceinline__ void pair(u32 row, u32 column, float gate, float up) const {
        if (row < rows && column < outputs) {
            out[static_cast<u64>(row) * (outputs / 2) + column / 2] = gate / (1.0f + expf(-gate)) * up;
        }
    }
};

// Keeps the largest output of each row, with its index: the upper half of a key grows with the value, the lower one falls
// with the index. No number at all leaves the key zero, which it must be before.
struct Largest {
    u64* keys;
    u32 rows, outputs;

    __device__ __forceinline__ u64 key(u32 column, float value) const {
        if (column >= outputs || value != value) {
            return 0;
        }
        // Zeros of either sign are equal.
        const u32 bits = __float_as_uint(value + 0.0f);
        const u32 ordered = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
        return static_cast<u64>(ordered) << 32 | (0xffffffffu - column);
    }

    __device__ __forceinline__ void pair(u32 row, u32 column, float first, float second) const {
        u64 largest = key(column, first), other = key(column + 1, second);
        largest = other > largest ? other : largest;
        // Four neighbouring lanes have the same row.
        for (int mask = 1; mask < 4; mask *= 2) {
            other = shuffle_xor(largest, mask);
            largest = other > largest ? other : largest;
        }
        if (threadIdx.x % 4 == 0 && row < rows) {
            atomicMax(keys + row, largest);
        }
    }
};
