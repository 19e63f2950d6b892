// A device on the host, so that g++ compiles the kernels as they are: threads of a block are fibers that take turns at
// barriers, blocks run one after the other. Results are those of a device up to the rounding of single operations; speed is
// not. For tests alone.

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Blocks of one launch run on one thread of the host, one after the other.
#define __shared__ static thread_local

namespace emulation {

struct Dimensions {
    unsigned x = 1, y = 1, z = 1;
};

// Threads that wait for each other.
struct Barrier {
    unsigned members = 0, arrived = 0;
    unsigned long generation = 0;

    bool arrive() {
        if (++arrived < members) {
            return false;
        }
        arrived = 0;
        ++generation;
        return true;
    }

    // One that has returned is waited for no more.
    void leave() {
        --members;
        if (members > 0 && arrived == members) {
            arrived = 0;
            ++generation;
        }
    }
};

// What lanes of a warp hand to each other.
struct Warp {
    Barrier barrier;
    std::uint64_t values[32];
    std::uint32_t a[32][4], b[32][2];
};

struct Fiber {
    ucontext_t entry;
    jmp_buf paused;
    bool is_started = false, is_done = false;
    Dimensions thread;
    std::unique_ptr<char[]> stack;
};

struct Machine {
    static constexpr std::size_t STACK_BYTES = 64 << 10;

    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    Barrier barrier;
    Dimensions block, grid_size, block_size;
    Fiber* current = nullptr;
    jmp_buf scheduler;
    void (*body)(void*) = nullptr;
    void* arguments = nullptr;

    Warp& warp() { return warps[current->thread.x / 32]; }

    // Lets others run until `barrier` opens.
    void wait(Barrier& barrier) {
        const unsigned long generation = barrier.generation;
        if (barrier.arrive()) {
            return;
        }
        while (barrier.generation == generation) {
            if (_setjmp(current->paused) == 0) {
                _longjmp(scheduler, 1);
            }
        }
    }

    static void enter(unsigned high, unsigned low) {
        auto* machine = reinterpret_cast<Machine*>(static_cast<std::uintptr_t>(high) << 32 | low);
        machine->body(machine->arguments);
        machine->current->is_done = true;
        machine->warp().barrier.leave();
        machine->barrier.leave();
        _longjmp(machine->scheduler, 1);
    }

    void resume(Fiber& fiber) {
        current = &fiber;
        if (_setjmp(scheduler) != 0) {
            return;
        }
        if (fiber.is_started) {
            _longjmp(fiber.paused, 1);
        }
        fiber.is_started = true;
        setcontext(&fiber.entry);
    }

    void prepare_block() {
        const unsigned threads = block_size.x;
        fibers.resize(threads);
        warps.assign((threads + 31) / 32, Warp{});
        barrier = Barrier{threads};
        for (unsigned i = 0; i < threads; ++i) {
            Fiber& fiber = fibers[i];
            fiber.is_started = fiber.is_done = false;
            fiber.thread = {i, 0, 0};
            ++warps[i / 32].barrier.members;
            if (!fiber.stack) {
                fiber.stack.reset(new char[STACK_BYTES]);
            }
            getcontext(&fiber.entry);
            fiber.entry.uc_stack.ss_sp = fiber.stack.get();
            fiber.entry.uc_stack.ss_size = STACK_BYTES;
            const auto self = reinterpret_cast<std::uintptr_t>(this);
            makecontext(
                &fiber.entry, reinterpret_cast<void (*)()>(&Machine::enter), 2, static_cast<unsigned>(self >> 32),
                static_cast<unsigned>(self));
        }
    }

    // Every other round goes backwards, so that a missing barrier shows.
    void run_block() {
        prepare_block();
        const std::size_t count = fibers.size();
        std::size_t left = count;
        for (unsigned round = 0; left > 0; ++round) {
            for (std::size_t i = 0; i < count; ++i) {
                Fiber& fiber = fibers[(round + block.x + block.y) % 2 == 0 ? i : count - 1 - i];
                if (!fiber.is_done) {
                    resume(fiber);
                    left -= fiber.is_done;
                }
            }
        }
    }

    void run(Dimensions grid, unsigned threads) {
        grid_size = grid;
        block_size = {threads, 1, 1};
        for (block.y = 0; block.y < grid.y; ++block.y) {
            for (block.x = 0; block.x < grid.x; ++block.x) {
                run_block();
            }
        }
    }
};

inline Machine& machine() {
    static thread_local Machine machine;
    return machine;
}

// What every lane hands in, for all of its warp to read.
inline std::uint64_t exchange(std::uint64_t value, unsigned from) {
    Warp& warp = machine().warp();
    warp.values[machine().current->thread.x % 32] = value;
    machine().wait(warp.barrier);
    const std::uint64_t result = warp.values[from];
    machine().wait(warp.barrier);
    return result;
}

// Takes a kernel's arguments out of the pointers that a launch passes.
template <class... Parameters>
struct Call {
    void (*kernel)(Parameters...);
    void** arguments;

    template <std::size_t... I>
    void run(std::index_sequence<I...>) const {
        kernel(*static_cast<Parameters*>(arguments[I])...);
    }
};

template <class... Parameters>
void launch(void (*kernel)(Parameters...), Dimensions grid, unsigned threads, void** arguments) {
    Call<Parameters...> call = {kernel, arguments};
    machine().arguments = &call;
    machine().body = [](void* call) {
        static_cast<Call<Parameters...>*>(call)->run(std::index_sequence_for<Parameters...>());
    };
    machine().run(grid, threads);
}

}  // namespace emulation

#define threadIdx (emulation::machine().current->thread)
#define blockIdx (emulation::machine().block)
#define blockDim (emulation::machine().block_size)
#define gridDim (emulation::machine().grid_size)

inline void __syncthreads() { emulation::machine().wait(emulation::machine().barrier); }

inline std::uint32_t __float_as_uint(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __uint_as_float(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline void atomicMax(u64* to, u64 value) { *to = value > *to ? value : *to; }
inline void atomicAdd(u64* to, u64 value) { *to += value; }

// Operations that nothing is fused with.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline double __dsub_rn(double a, double b) { return a - b; }

inline u64 __umul64hi(u64 a, u64 b) { return static_cast<u64>(static_cast<unsigned __int128>(a) * b >> 64); }

inline long long __double_as_longlong(double value) {
    long long bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline double __longlong_as_double(long long bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline u64 shuffle(u64 value, int lane) { return emulation::exchange(value, lane); }
inline float shuffle(float value, int lane) {
    return __uint_as_float(static_cast<u32>(emulation::exchange(__float_as_uint(value), lane)));
}
inline u64 shuffle_xor(u64 value, int mask) { return shuffle(value, static_cast<int>(threadIdx.x % 32) ^ mask); }
inline float shuffle_xor(float value, int mask) { return shuffle(value, static_cast<int>(threadIdx.x % 32) ^ mask); }

// See device.cuh. The sum of a tile's sixteen products is exact but for its end.
inline void multiply_tile(float (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    emulation::Warp& warp = emulation::machine().warp();
    const unsigned lane = threadIdx.x % 32, row = lane / 4, column = lane % 4 * 2;
    const u32 a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    std::memcpy(warp.a[lane], a, sizeof a);
    std::memcpy(warp.b[lane], b, sizeof b);
    emulation::machine().wait(warp.barrier);
    const auto value = [](u32 pair, unsigned k) { return __uint_as_float((pair >> k % 2 * 16 & 0xffffu) << 16); };
    for (unsigned i = 0; i < 4; ++i) {
        double exact = 0.0;
        for (unsigned k = 0; k < 16; ++k) {
            const u32 of_a = warp.a[row * 4 + k % 8 / 2][i / 2 + k / 8 * 2];
            const u32 of_b = warp.b[(column + i % 2) * 4 + k % 8 / 2][k / 8];
            exact += static_cast<double>(value(of_a, k)) * value(of_b, k);
        }
        sum[i] += static_cast<float>(exact);
    }
    emulation::machine().wait(warp.barrier);
}
