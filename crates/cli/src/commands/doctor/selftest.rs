//! Every kernel of a backend against its plain twin.

use anyhow::Result;
use windlass_kernels::selftest::{self, Check};
use windlass_kernels::{Backend, Cpu, CpuConfig, GpuConfig, WeightFormat};

use super::report::CheckReport;

/// Tests the GPU, or without one the processor, with every format of weights that it has.
pub(super) fn run(gpu: Option<&GpuConfig>, threads: usize) -> Result<Vec<CheckReport>> {
    match gpu {
        None => {
            let formats = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8];
            let cpu = |weights| Cpu::with(CpuConfig { weights, ..CpuConfig::new(threads) });
            Ok(formats.into_iter().flat_map(|weights| checks(&cpu(weights), weights)).collect())
        }
        Some(gpu) => on_gpu(gpu),
    }
}

#[cfg(feature = "cuda")]
fn on_gpu(gpu: &GpuConfig) -> Result<Vec<CheckReport>> {
    let mut reports = Vec::new();
    for weights in [WeightFormat::F32, WeightFormat::Bf16] {
        reports.extend(checks(&windlass_kernels::cuda::Cuda::open(gpu, weights)?, weights));
    }
    Ok(reports)
}

#[cfg(not(feature = "cuda"))]
fn on_gpu(_: &GpuConfig) -> Result<Vec<CheckReport>> {
    Err(windlass_kernels::CudaError::NotBuilt.into())
}

fn checks<B: Backend>(backend: &B, weights: WeightFormat) -> Vec<CheckReport> {
    let report = |check: Check| CheckReport {
        weights: weights.to_string(),
        operation: check.operation,
        error: check.error,
        tolerance: check.tolerance,
        passed: check.is_passed(),
    };
    selftest::run(backend).into_iter().map(report).collect()
}
