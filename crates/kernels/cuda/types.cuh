// Types that every file uses. Nothing is included: the compiler for the device needs no headers installed.

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

#define KERNEL extern "C" __global__ void
