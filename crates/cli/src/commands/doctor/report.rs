//! What `windlass doctor` says, as text or JSON.

use std::io::{self, Write};

use serde::Serialize;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) processor: Processor,
    /// None where nobody can be asked; then there is a problem.
    pub(super) cuda: Option<Gpus>,
    pub(super) cuda_problem: Option<String>,
    pub(super) model: Option<ModelReport>,
    pub(super) selftest: Vec<CheckReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct Processor {
    pub(super) cores: usize,
    /// From the best to the least; the first is used.
    pub(super) instructions: Vec<String>,
    pub(super) free_memory_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Gpus {
    /// The newest CUDA that the driver knows.
    pub(super) driver_cuda: String,
    pub(super) has_compiler: bool,
    pub(super) has_nccl: bool,
    pub(super) devices: Vec<GpuReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct GpuReport {
    pub(super) name: String,
    pub(super) architecture: String,
    pub(super) memory_bytes: u64,
    pub(super) multiprocessors: u32,
    /// Other devices whose memory it reaches by itself.
    pub(super) peers: Vec<usize>,
}

#[derive(Debug, Serialize)]
pub(super) struct ModelReport {
    pub(super) name: String,
    pub(super) parameters: u64,
    pub(super) weights: String,
    pub(super) weight_bytes: u64,
    /// Latents, activations and logits with a worker's default limits.
    pub(super) row_bytes: u64,
    /// The most iterations of the default effort.
    pub(super) depth: u32,
    pub(super) position_bytes_full: u64,
    pub(super) position_bytes_ring_1: u64,
    /// That fit beside weights and rows, where the memory is known.
    pub(super) positions_full: Option<u64>,
    pub(super) positions_ring_1: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct CheckReport {
    /// `cpu`, `gpu N`, or `all gpus`, of what they do together.
    pub(super) device: String,
    pub(super) weights: String,
    pub(super) operation: &'static str,
    /// Relative to the twin, or of answers how many differ; null where a result is no number.
    pub(super) error: f32,
    pub(super) tolerance: f32,
    pub(super) passed: bool,
}

impl Report {
    /// For people, but for the checks, which are told one by one.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Processor { cores, instructions, free_memory_bytes } = &self.processor;
        writeln!(out, "windlass     {}", self.version)?;
        writeln!(out, "processor    {cores} cores, instructions {}", instructions.join(", "))?;
        if let Some(bytes) = free_memory_bytes {
            writeln!(out, "memory       {} free", gigabytes(*bytes))?;
        }
        match (&self.cuda, &self.cuda_problem) {
            (Some(gpus), _) => gpus.write(out)?,
            (None, problem) => {
                writeln!(out, "gpu          none: {}", problem.as_deref().unwrap_or_default())?
            }
        }
        if let Some(model) = &self.model {
            model.write(out)?;
        }
        Ok(())
    }
}

impl CheckReport {
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { device, weights, operation, error, tolerance, passed } = self;
        let verdict = if *passed { "ok" } else { "WRONG" };
        writeln!(
            out,
            "selftest     {verdict:<6} {device:<8} {weights:<5} {operation:<28} error {error:.1e}, allowed {tolerance:.0e}"
        )
    }
}

impl Gpus {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let presence = |is_there| if is_there { "there" } else { "missing" };
        writeln!(out, "driver       CUDA {}", self.driver_cuda)?;
        writeln!(
            out,
            "libraries    NVRTC {}, NCCL {}",
            presence(self.has_compiler),
            presence(self.has_nccl)
        )?;
        for (number, gpu) in self.devices.iter().enumerate() {
            let GpuReport { name, architecture, memory_bytes, multiprocessors, peers } = gpu;
            let peers: Vec<_> = peers.iter().map(usize::to_string).collect();
            let peers = if peers.is_empty() { "none".to_owned() } else { peers.join(", ") };
            let memory = gigabytes(*memory_bytes);
            writeln!(
                out,
                "gpu {number:<8} {name}, {architecture}, {memory}, {multiprocessors} multiprocessors, peers {peers}"
            )?;
        }
        Ok(())
    }
}

impl ModelReport {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { name, parameters, weights, depth, .. } = self;
        let [weight, rows] = [self.weight_bytes, self.row_bytes].map(gigabytes);
        writeln!(
            out,
            "model        {name}, {parameters} parameters: weights as {weights} {weight}, rows {rows}"
        )?;
        for (policy, bytes, fit) in [
            ("full", self.position_bytes_full, self.positions_full),
            ("ring:1", self.position_bytes_ring_1, self.positions_ring_1),
        ] {
            let fit = fit.map_or_else(|| "?".to_owned(), |fit| fit.to_string());
            writeln!(
                out,
                "kv {policy:<9} {bytes} bytes per position at {depth} iterations: {fit} positions fit"
            )?;
        }
        Ok(())
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}
