//! Every kernel of a backend against its plain twin.

use anyhow::Result;
use windlass_kernels::selftest::{self, Check};
use windlass_kernels::{Backend, Cpu, CpuConfig, GpuConfig, WeightFormat};

use super::report::CheckReport;

/// Tests the GPUs, or without any the processor, with every format of weights that each has, and how several work together: the stages
/// of a ring, and where NCCL is there a group of ranks.
pub(super) fn run(gpus: Option<&GpuConfig>, has_nccl: bool, threads: usize) -> Result<Vec<CheckReport>> {
    match gpus {
        None => {
            let formats = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8];
            let cpu = |weights| Cpu::with(CpuConfig { weights, ..CpuConfig::new(threads) });
            let tested = formats.into_iter().flat_map(|weights| checks("cpu", &cpu(weights), weights));
            Ok(tested.collect())
        }
        Some(gpus) => on_gpus(gpus, has_nccl),
    }
}

#[cfg(feature = "cuda")]
fn on_gpus(gpus: &GpuConfig, has_nccl: bool) -> Result<Vec<CheckReport>> {
    use windlass_kernels::cuda::Cuda;

    let mut reports = Vec::new();
    for weights in [WeightFormat::F32, WeightFormat::Bf16] {
        let opened = Cuda::open(gpus, 1, weights)?;
        for (device, cuda) in gpus.devices.iter().zip(opened.iter().flatten()) {
            reports.extend(checks(&format!("gpu {device}"), cuda, weights));
        }
    }
    let all: Vec<_> = Cuda::open(gpus, 1, WeightFormat::F32)?.into_iter().flatten().collect();
    let mut together = vec![selftest::run_ring(&all)];
    if has_nccl {
        together.extend(selftest::run_group(Cuda::group(all)?));
    }
    reports.extend(together.iter().map(|check| report("all gpus", WeightFormat::F32, check)));
    Ok(reports)
}

#[cfg(not(feature = "cuda"))]
fn on_gpus(_: &GpuConfig, _: bool) -> Result<Vec<CheckReport>> {
    Err(windlass_kernels::CudaError::NotBuilt.into())
}

fn checks<B: Backend>(device: &str, backend: &B, weights: WeightFormat) -> Vec<CheckReport> {
    selftest::run(backend).iter().map(|check| report(device, weights, check)).collect()
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
