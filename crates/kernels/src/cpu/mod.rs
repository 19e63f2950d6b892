//! The CPU backend: packed weights, vectors as wide as the machine has, a thread pool of its own.

mod attention;
mod isa;
mod math;
mod matmul;
mod rowwise;
mod simd;

use attention::KvCache;
pub use isa::Isa;
use matmul::{Input, PackedMatrix};

use crate::backend::{Backend, LatentChange, Rows};
use crate::kv::{KvRows, KvShape};

/// Runs on this machine's cores.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    pool: rayon::ThreadPool,
}

impl Cpu {
    /// A backend on `threads` threads (at least 1) with the best instruction set of the machine.
    ///
    /// # Panics
    /// If the system refuses the threads.
    pub fn new(threads: usize) -> Self {
        Self::with_isa(threads, Isa::detect())
    }

    /// The same on a given instruction set.
    ///
    /// # Panics
    /// If this machine lacks it, or refuses the threads.
    pub fn with_isa(threads: usize, isa: Isa) -> Self {
        assert!(isa.is_available(), "{isa:?} is not available on this machine");
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|i| format!("windlass-cpu-{i}"))
            .build()
            .expect("threads of the CPU backend");
        Self { isa, pool }
    }

    fn team(&self) -> (Isa, &rayon::ThreadPool) {
        (self.isa, &self.pool)
    }
}

/// f32 `[capacity, width]`, row-major.
#[derive(Debug)]
pub struct CpuBuffer {
    data: Vec<f32>,
    width: usize,
}

impl CpuBuffer {
    fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.width..][..self.width]
    }

    fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.width..][..self.width]
    }

    fn input<'a>(&'a self, rows: Rows<'a>) -> Input<'a> {
        Input { data: &self.data, width: self.width, rows }
    }
}

impl Backend for Cpu {
    type Buffer = CpuBuffer;
    type Matrix = PackedMatrix;
    type KvCache = KvCache;

    fn buffer(&self, capacity: usize, width: usize) -> CpuBuffer {
        CpuBuffer { data: vec![0.0; capacity * width], width }
    }

    fn matrix(&self, weight: &[f32], outputs: usize, inputs: usize) -> PackedMatrix {
        PackedMatrix::pack(weight, outputs, inputs)
    }

    fn kv_cache(&self, shape: KvShape) -> KvCache {
        KvCache::new(shape)
    }

    fn upload(&self, values: &[f32], to: &mut CpuBuffer, rows: Rows<'_>) {
        assert_eq!(values.len(), rows.len() * to.width, "values are not [{}, {}]", rows.len(), to.width);
        for (i, values) in values.chunks_exact(to.width).enumerate() {
            to.row_mut(rows.index(i)).copy_from_slice(values);
        }
    }

    fn download(&self, from: &CpuBuffer, rows: usize, to: &mut Vec<f32>) {
        to.clear();
        to.extend_from_slice(&from.data[..rows * from.width]);
    }

    fn scatter(&self, from: &CpuBuffer, to: &mut CpuBuffer, rows: Rows<'_>) {
        for i in 0..rows.len() {
            to.row_mut(rows.index(i)).copy_from_slice(from.row(i));
        }
    }

    fn embed(&self, table: &CpuBuffer, tokens: &[u32], scale: f32, out: &mut CpuBuffer) {
        for (i, &token) in tokens.iter().enumerate() {
            for (out, value) in out.row_mut(i).iter_mut().zip(table.row(token as usize)) {
                *out = value * scale;
            }
        }
    }

    fn matmul(&self, x: &CpuBuffer, rows: usize, weight: &PackedMatrix, out: &mut CpuBuffer) {
        assert_eq!(out.width, weight.outputs(), "output width and weight differ");
        matmul::matmul(self.team(), x.input(Rows::First(rows)), weight, &mut out.data, false);
    }

    fn adapter(
        &self,
        (latent, on_latent): (&CpuBuffer, &PackedMatrix),
        (embedding, on_embedding): (&CpuBuffer, &PackedMatrix),
        rows: Rows<'_>,
        out: &mut CpuBuffer,
    ) {
        assert_eq!(
            (out.width, out.width),
            (on_latent.outputs(), on_embedding.outputs()),
            "output width differs"
        );
        matmul::matmul(self.team(), latent.input(rows), on_latent, &mut out.data, false);
        matmul::matmul(self.team(), embedding.input(rows), on_embedding, &mut out.data, true);
    }

    fn rms_norm(&self, x: &CpuBuffer, rows: Rows<'_>, weight: &[f32], eps: f32, out: &mut CpuBuffer) {
        for i in 0..rows.len() {
            rowwise::rms_norm(self.isa, x.row(rows.index(i)), weight, eps, out.row_mut(i));
        }
    }

    fn add_rms_norm(&self, x: &mut CpuBuffer, residual: &CpuBuffer, rows: usize, weight: &[f32], eps: f32) {
        for i in 0..rows {
            rowwise::add_rms_norm(self.isa, x.row_mut(i), residual.row(i), weight, eps);
        }
    }

    fn silu_mul(&self, gate_up: &CpuBuffer, rows: usize, out: &mut CpuBuffer) {
        for i in 0..rows {
            let (gate, up) = gate_up.row(i).split_at(out.width);
            rowwise::silu_mul(self.isa, gate, up, out.row_mut(i));
        }
    }

    fn rotate_and_store(
        &self,
        qkv: &mut CpuBuffer,
        bias: Option<&[f32]>,
        rotary: &CpuBuffer,
        rows: KvRows<'_>,
        layer: usize,
        cache: &mut KvCache,
    ) {
        attention::rotate_and_store(self.isa, &mut qkv.data, bias, &rotary.data, rows, layer, cache);
    }

    fn attention(
        &self,
        qkv: &CpuBuffer,
        rows: KvRows<'_>,
        layer: usize,
        cache: &KvCache,
        out: &mut CpuBuffer,
    ) {
        attention::attention(self.team(), &qkv.data, rows, layer, cache, &mut out.data);
    }

    fn commit_latent(
        &self,
        x: &CpuBuffer,
        latent: &mut CpuBuffer,
        rows: Rows<'_>,
        changes: &mut Vec<LatentChange>,
    ) {
        let commit = |i| {
            let (current, latent) = (x.row(i), latent.row_mut(rows.index(i)));
            let change = rowwise::latent_change(self.isa, current, latent);
            latent.copy_from_slice(current);
            change
        };
        changes.clear();
        changes.extend((0..rows.len()).map(commit));
    }
}
