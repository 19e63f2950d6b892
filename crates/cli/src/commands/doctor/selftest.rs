//! Every kernel of a backend against its plain twin, and whole answers.

use anyhow::Result;
use windlass_kernels::selftest::{self, Check};
use windlass_kernels::{Backend, Cpu, CpuConfig, GpuConfig, WeightFormat};

use super::answers;
use super::report::CheckReport;

/// Tests the GPUs, or without any the processor, with every format of weights that each has, and how several work together: the stages
/// of a ring, and where NCCL is there processes of a ring and a group of ranks. Tells of each check when it is done.
pub(super) fn run(
    gpus: Option<&GpuConfig>,
    has_nccl: bool,
    threads: usize,
    tell: &mut dyn FnMut(CheckReport) -> Result<()>,
) -> Result<()> {
    match gpus {
        None => {
            for weights in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8] {
                on("cpu", Cpu::with(CpuConfig { weights, ..CpuConfig::new(threads) }), weights, tell)?;
            }
            Ok(())
        }
        Some(gpus) => on_gpus(gpus, has_nccl, tell),
    }
}

#[cfg(feature = "cuda")]
fn on_gpus(gpus: &GpuConfig, has_nccl: bool, tell: &mut dyn FnMut(CheckReport) -> Result<()>) -> Result<()> {
    use windlass_kernels::cuda::Cuda;

    for weights in [WeightFormat::F32, WeightFormat::Bf16] {
        let opened = Cuda::open(gpus, 1, weights)?.into_iter().flatten();
        for (device, cuda) in gpus.devices.iter().zip(opened) {
            on(&format!("gpu {device}"), cuda, weights, tell)?;
        }
    }
    let all: Vec<_> = Cuda::open(gpus, 1, WeightFormat::F32)?.into_iter().flatten().collect();
    let mut together = |check: &Check| tell(report("all gpus", WeightFormat::F32, check));
    together(&selftest::run_ring(&all))?;
    if !has_nccl {
        return Ok(());
    }
    if all.len() > 1 {
        let linked: Vec<_> = Cuda::open(gpus, 1, WeightFormat::F32)?.into_iter().flatten().collect();
        together(&selftest::run_links(&Cuda::ring(linked)?))?;
    }
    selftest::run_group(Cuda::group(all)?).iter().try_for_each(together)
}

#[cfg(not(feature = "cuda"))]
fn on_gpus(_: &GpuConfig, _: bool, _: &mut dyn FnMut(CheckReport) -> Result<()>) -> Result<()> {
    Err(windlass_kernels::CudaError::NotBuilt.into())
}

fn on<B: Backend>(
    device: &str,
    backend: B,
    weights: WeightFormat,
    tell: &mut dyn FnMut(CheckReport) -> Result<()>,
) -> Result<()> {
    let mut told = Ok(());
    selftest::run(&backend, |check| {
        if told.is_ok() {
            told = tell(report(device, weights, &check));
        }
    });
    told?;
    tell(report(device, weights, &answers::check(backend)?))
}

fn report(device: &str, weights: WeightFormat, check: &Check) -> CheckReport {
    CheckReport {
        device: device.to_owned(),
        weights: weights.to_string(),
        operation: check.operation,
        error: check.error,
        tolerance: check.tolerance,
        passed: check.is_passed(),
    }
}
