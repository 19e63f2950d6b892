//! The CUDA backend without a GPU: its kernels compiled for GPUs, and run on this machine's cores.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use windlass_kernels::cuda::{Cuda, Emulator, Gpu, GpuConfig, Survey, compile};
use windlass_kernels::{CudaError, WeightFormat, selftest};

fn emulated(format: WeightFormat) -> Cuda<Emulator> {
    Cuda::new(Emulator::get(), format).unwrap()
}

fn check(format: WeightFormat) {
    for check in selftest::run(&emulated(format)) {
        assert!(check.is_passed(), "{format}: {check:?}");
    }
}

#[test]
fn every_operation_in_f32_matches_its_twin_in_every_batch() {
    check(WeightFormat::F32);
}

#[test]
fn every_operation_in_bf16_matches_its_twin_in_every_batch() {
    check(WeightFormat::Bf16);
}

/// Needs NVRTC, which `make test` installs.
#[test]
fn kernels_compile_for_every_architecture() {
    for architecture in ["sm_80", "sm_90", "sm_100"] {
        let image = compile(architecture).unwrap();
        assert!(image.starts_with(b"\x7fELF"), "{architecture}: no image for a device");
    }
}

#[test]
fn int8_is_refused_with_what_to_use() {
    let error = Cuda::new(Emulator::get(), WeightFormat::Int8).unwrap_err();
    assert_eq!(error.to_string(), "weights is int8: with backend cuda use f32 or bf16");
}

#[test]
fn without_a_driver_one_hears_which_file_is_missing() {
    let errors = [Gpu::open(&GpuConfig::default()).err(), Survey::take().err()];
    for error in errors.into_iter().flatten() {
        if let CudaError::NoDriver { file } = &error {
            assert_eq!(*file, "libcuda.so.1");
            assert!(error.to_string().contains("install the driver"), "{error}");
        }
    }
}
