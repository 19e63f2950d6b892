// The way in: runs the kernel of a name. Stands after the kernels; ALL_KERNELS is put before it by who compiles it.

extern "C" int windlass_launch(const char* name, unsigned grid_x, unsigned grid_y, unsigned threads, void** arguments) {
#define LAUNCH(kernel)                                                                 \
    if (std::strcmp(name, #kernel) == 0) {                                             \
        emulation::launch(kernel, {grid_x, grid_y, 1}, threads, arguments);            \
        return 0;                                                                      \
    }
    ALL_KERNELS(LAUNCH)
#undef LAUNCH
    return 1;
}
