//! What this machine could do at most: multiply-adds in registers, and bytes read.
//!
//! Nothing but the operation itself is measured, on data that no library could have better placed. x86-64 only.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::Barrier;
use std::time::Instant;

use serde_json::{Value, json};

const MILLISECONDS: f64 = 60.0;

/// Does its operation `rounds` times and returns how many operations (or bytes) that were.
type Work = fn(&mut [u64], usize) -> f64;

/// A line for each ceiling the machine has.
pub fn measure(threads: usize) -> Vec<Value> {
    let avx512 = is_x86_feature_detected!("avx512f");
    let operations: [(&str, bool, Work); 5] = [
        ("f32, AVX-512 multiply-add", avx512, |_, n| unsafe { multiply_add(n) }),
        ("bf16, AVX-512 dot product", is_x86_feature_detected!("avx512bf16"), |_, n| unsafe { dot_bf16(n) }),
        ("int8, AVX-512 dot product", is_x86_feature_detected!("avx512vnni"), |_, n| unsafe { dot_int8(n) }),
        ("bf16, AMX", has_amx(), |_, n| unsafe { tiles_bf16(n) }),
        ("int8, AMX", has_amx(), |_, n| unsafe { tiles_int8(n) }),
    ];
    let mut lines = Vec::new();
    for (name, present, work) in operations {
        if present {
            let gops = best(threads, 0, false, work) / 1e9;
            lines.push(json!({"threads": threads, "ceiling": name, "gops": gops}));
        }
    }
    if avx512 {
        for (name, bytes) in
            [("1 MB", 1 << 20), ("64 MB", 64 << 20), ("256 MB", 256 << 20), ("2 GB", 2 << 30)]
        {
            for (pages, huge) in [("4 kB pages", false), ("2 MB pages", true)] {
                let gb = best(threads, bytes, huge, |data, n| unsafe { read(data, n) }) / 1e9;
                lines.push(json!({"threads": threads, "ceiling": format!("read {name}, {pages}"), "gb": gb}));
            }
        }
    }
    lines
}

/// Markdown of such lines.
pub fn markdown(lines: &[Value]) -> String {
    let mut out = String::from("| | threads | |\n|---|---|---|\n");
    for line in lines {
        let (value, unit) = match line["gops"].as_f64() {
            Some(gops) => (gops, "GOP/s"),
            None => (line["gb"].as_f64().unwrap_or_default(), "GB/s"),
        };
        let (name, threads) = (line["ceiling"].as_str().unwrap_or_default(), &line["threads"]);
        out += &format!("| {name} | {threads} | {value:.0} {unit} |\n");
    }
    out
}

/// Best of several rates of all threads together; each has its share of `bytes`.
fn best(threads: usize, bytes: usize, huge: bool, work: Work) -> f64 {
    let barrier = Barrier::new(threads);
    let one = || {
        let mut data = allocate(bytes / threads / size_of::<u64>(), huge);
        let mut rounds = 1;
        while seconds(&mut data, rounds, work).1 < MILLISECONDS / 4e3 {
            rounds *= 2;
        }
        let trial = || {
            barrier.wait();
            let (done, seconds) = seconds(&mut data, rounds * 4, work);
            done / seconds
        };
        std::iter::repeat_with(trial).take(5).collect::<Vec<f64>>()
    };
    let rates: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        handles.into_iter().map(|handle| handle.join().expect("a ceiling")).collect()
    });
    (0..5).map(|trial| rates.iter().map(|rates| rates[trial]).sum()).fold(0.0, f64::max)
}

fn seconds(data: &mut [u64], rounds: usize, work: Work) -> (f64, f64) {
    let start = Instant::now();
    let done = work(data, rounds);
    (done, start.elapsed().as_secs_f64())
}

fn allocate(len: usize, huge: bool) -> Vec<u64> {
    let mut data: Vec<u64> = Vec::with_capacity(len);
    if huge && len > 0 {
        let page = 2 << 20;
        let at = data.as_mut_ptr() as usize;
        let (from, to) = (at.next_multiple_of(page), (at + len * 8) / page * page);
        if from < to {
            // SAFETY: whole pages inside the allocation; the advice does not change what they hold.
            unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_HUGEPAGE) };
        }
    }
    data.resize(len, 1);
    data
}

/// # Safety
/// The machine must have AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn multiply_add(rounds: usize) -> f64 {
    let (x, y) = std::hint::black_box((_mm512_set1_ps(0.999), _mm512_set1_ps(0.001)));
    let mut sums = std::hint::black_box([_mm512_set1_ps(1.0); 24]);
    for _ in 0..rounds * 1024 {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, x, y);
        }
    }
    std::hint::black_box(sums);
    (rounds * 1024 * 24 * 32) as f64
}

/// # Safety
/// The machine must have AVX512_BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn dot_bf16(rounds: usize) -> f64 {
    let zero = _mm512_setzero_ps();
    // SAFETY: both are 512 bits without invalid values.
    let x: __m512bh = unsafe { std::mem::transmute(std::hint::black_box(zero)) };
    let mut sums = std::hint::black_box([zero; 24]);
    for _ in 0..rounds * 1024 {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, x, x);
        }
    }
    std::hint::black_box(sums);
    (rounds * 1024 * 24 * 64) as f64
}

/// # Safety
/// The machine must have AVX512_VNNI.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn dot_int8(rounds: usize) -> f64 {
    let x = std::hint::black_box(_mm512_set1_epi8(1));
    let mut sums = std::hint::black_box([_mm512_setzero_si512(); 24]);
    for _ in 0..rounds * 1024 {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, x, x);
        }
    }
    std::hint::black_box(sums);
    (rounds * 1024 * 24 * 128) as f64
}

/// # Safety
/// The machine must have AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn read(data: &mut [u64], rounds: usize) -> f64 {
    let mut sums = [_mm512_setzero_si512(); 8];
    for _ in 0..rounds {
        for chunk in std::hint::black_box(&*data).chunks_exact(64) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: eight times eight values are the chunk's 64.
                let values = unsafe { _mm512_loadu_si512(chunk.as_ptr().add(8 * i).cast()) };
                *sum = _mm512_xor_si512(*sum, values);
            }
        }
    }
    std::hint::black_box(sums);
    (rounds * data.len() * 8) as f64
}

/// Whether tiles exist and the system lets this process use them.
fn has_amx() -> bool {
    const REQUEST: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    let leaf = __cpuid_count(7, 0);
    let present = leaf.edx >> 24 & 1 == 1 && leaf.edx >> 22 & 1 == 1 && leaf.edx >> 25 & 1 == 1;
    // SAFETY: the request has no effect but the permission.
    present && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) } == 0
}

/// # Safety
/// The machine must have AMX, and this process the permission.
unsafe fn configure() {
    #[repr(align(64))]
    struct Tiles([u8; 64]);
    let mut tiles = Tiles([0; 64]);
    tiles.0[0] = 1;
    for tile in 0..8 {
        tiles.0[16 + 2 * tile] = 64;
        tiles.0[48 + tile] = 16;
    }
    // SAFETY: a valid configuration: palette 1, eight tiles of 16 rows by 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) tiles.0.as_ptr(), options(nostack, readonly)) };
}

/// # Safety
/// As for [`configure`].
unsafe fn tiles_bf16(rounds: usize) -> f64 {
    // SAFETY: as this function's.
    unsafe { configure() };
    for _ in 0..rounds * 256 {
        // SAFETY: all tiles are configured; nothing else uses them.
        unsafe {
            asm!(
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                options(nostack, nomem)
            );
        }
    }
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
    (rounds * 256 * 4 * 16 * 16 * 32 * 2) as f64
}

/// # Safety
/// As for [`configure`].
unsafe fn tiles_int8(rounds: usize) -> f64 {
    // SAFETY: as this function's.
    unsafe { configure() };
    for _ in 0..rounds * 256 {
        // SAFETY: as above.
        unsafe {
            asm!(
                "tdpbssd tmm0, tmm4, tmm6",
                "tdpbssd tmm1, tmm4, tmm7",
                "tdpbssd tmm2, tmm5, tmm6",
                "tdpbssd tmm3, tmm5, tmm7",
                options(nostack, nomem)
            );
        }
    }
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
    (rounds * 256 * 4 * 16 * 16 * 64 * 2) as f64
}
