//! The kernels' sources, as one text that is compiled in one piece.

/// Files in the order in which they need each other.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../cuda/", $name)))),*]
    };
}

const TYPES: [(&str, &str); 1] = files!["types.cuh"];
const DEVICE: [(&str, &str); 1] = files!["device.cuh"];
const KERNELS: [(&str, &str); 15] = files![
    "base.cuh",
    "rows.cu",
    "norms.cu",
    "input.cu",
    "pack.cu",
    "epilogue.cu",
    "product_bf16.cu",
    "product_f32.cu",
    "kv.cuh",
    "tables.cu",
    "rotate.cu",
    "attention.cu",
    "attention_tiles.cu",
    "ranks.cu",
    "draw.cu",
];

/// For a GPU's compiler.
pub(super) fn for_gpu() -> String {
    join(TYPES.into_iter().chain(DEVICE).chain(KERNELS))
}

/// For the host's compiler.
#[cfg(feature = "cuda-emulator")]
pub(super) fn for_emulator() -> String {
    use super::device::Kernel;

    let device = files!["emulation/device.hpp"];
    let launch = files!["emulation/launch.hpp"];
    let names: Vec<_> = Kernel::ALL.iter().map(|kernel| format!("X({})", kernel.name())).collect();
    let all = format!("#define ALL_KERNELS(X) {}\n", names.join(" "));
    join(TYPES.into_iter().chain(device).chain(KERNELS)) + &all + &join(launch)
}

/// With each file's name, for messages of compilers.
fn join<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    files.into_iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}")).collect()
}
