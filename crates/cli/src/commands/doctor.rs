//! `windlass doctor`: what this machine has, what fits on it, and whether its kernels compute right.

mod answers;
mod gpus;
mod plan;
mod report;
mod selftest;

use std::io::{Write, stdout};
use std::thread::available_parallelism;

use anyhow::{Result, bail};
use clap::Args;
use windlass_kernels::{GpuConfig, Isa, WeightFormat};

use super::bench::free_memory;
use crate::config::{model_folder, thread_count};
use crate::device_options::DeviceOptions;
use report::{Processor, Report};

/// Shows what this machine has and what fits on it, and tests its kernels
///
/// Exits with 1 where the backend asked for cannot be used or a check fails.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    device: DeviceOptions,
    /// Run every kernel of the backend, with every format of weights, against a plain twin, and the demo model on requests alone and
    /// together, and show the errors
    #[arg(long)]
    selftest: bool,
    /// Show what this model takes: its folder, or `demo` for the one in this program
    #[arg(long, value_name = "DIR|demo", env = "WINDLASS_MODEL")]
    model: Option<String>,
    /// How the model's weights are stored: f32, bf16 or int8
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    weights: WeightFormat,
    /// Threads of the computation [default: all cores]
    #[arg(long, value_name = "N", env = "WINDLASS_THREADS")]
    threads: Option<usize>,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &DoctorArguments) -> Result<()> {
    let asked_for = arguments.device.gpus(arguments.device.named().max(1))?;
    let threads = thread_count(arguments.threads)?;
    let (gpus, problem) = gpus::survey();
    let has_nccl = gpus.as_ref().is_some_and(|gpus| gpus.has_nccl);
    let memory_bytes = match &asked_for {
        // All that the smallest has.
        Some(GpuConfig { devices, .. }) => gpus.as_ref().and_then(|gpus| {
            devices.iter().filter_map(|&device| Some(gpus.devices.get(device)?.memory_bytes)).min()
        }),
        None => free_memory(),
    };
    let model = arguments.model.as_deref().map(model_folder).transpose()?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        processor: Processor {
            cores: available_parallelism().map_or(1, usize::from),
            instructions: Isa::ALL.iter().filter(|isa| isa.is_available()).map(Isa::to_string).collect(),
            free_memory_bytes: free_memory(),
        },
        cuda: gpus,
        cuda_problem: problem.as_ref().map(ToString::to_string),
        model: model
            .map(|model| plan::plan(&model, arguments.weights, asked_for.is_some(), memory_bytes))
            .transpose()?,
        selftest: Vec::new(),
    };
    if !arguments.json {
        report.write(&mut stdout().lock())?;
    }
    let can_be_used = asked_for.is_none() || problem.is_none();
    let mut tested = Ok(());
    if arguments.selftest && can_be_used {
        tested = selftest::run(asked_for.as_ref(), has_nccl, threads, &mut |check| {
            if !arguments.json {
                check.write(&mut stdout().lock())?;
            }
            report.selftest.push(check);
            Ok(())
        });
    }
    if arguments.json {
        writeln!(stdout(), "{}", serde_json::to_string(&report)?)?;
    }
    if let (Some(_), Some(problem)) = (asked_for, problem) {
        return Err(problem.into());
    }
    tested?;
    let failed = report.selftest.iter().filter(|check| !check.passed).count();
    if failed > 0 {
        bail!("{failed} checks fail: do not serve on this machine with this backend");
    }
    Ok(())
}
