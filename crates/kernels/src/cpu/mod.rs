//! The CPU backend: packed weights, vectors as wide as the machine has, threads of its own.

mod amx;
mod attention;
mod buffer;
mod cache;
mod disjoint;
mod draw;
mod format;
mod isa;
mod marks;
mod math;
mod pages;
mod product;
mod rotate;
mod rowwise;
mod simd;
mod team;

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use buffer::{CpuBuffer, RowsOf};
use cache::KvCache;
use disjoint::Disjoint;
use draw::draw_on;
pub use draw::{DrawScratch, draw};
pub use format::{Arithmetic, WeightFormat};
pub use isa::Isa;
use marks::Marks;
use product::{Epilogue, Gate, Input, Largest, Order, PackedMatrix, Prepared, Store};
use team::Team;

use crate::backend::{
    Backend, Commit, LargestOutput, LatentChange, Norm, NormWeights, Rotation, Rows, Stopped,
};
use crate::draw::Draws;
use crate::group::{Exchange, seats};
use crate::kv::{BLOCK_POSITIONS, KvRows, KvShape};
use crate::report::Reported;
use crate::weight::Weight;

/// How a [`Cpu`] computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuConfig {
    /// Threads in all, the calling one among them; at least 1.
    pub threads: usize,
    /// The instruction set.
    pub isa: Isa,
    /// How weights are stored.
    pub weights: WeightFormat,
}

impl CpuConfig {
    /// f32 weights on the best instruction set of the machine.
    pub fn new(threads: usize) -> Self {
        Self { threads, isa: Isa::detect(), weights: WeightFormat::default() }
    }

    /// The same for `parts` devices that share these threads, as evenly as can be, each with one at least.
    pub fn split(self, parts: usize) -> impl Iterator<Item = Self> {
        let threads = move |part| (self.threads / parts + usize::from(part < self.threads % parts)).max(1);
        (0..parts).map(move |part| Self { threads: threads(part), ..self })
    }
}

/// Runs on this machine's cores.
pub struct Cpu {
    isa: Isa,
    weights: WeightFormat,
    team: Team,
    /// Kept between products. One product runs at a time.
    prepared: Mutex<Prepared>,
    /// Kept between calls as well.
    largest: Mutex<Largest>,
    /// For rows that several threads write.
    marks: Marks,
    /// The way to the other ranks of its group, if it is one of several.
    exchange: Option<Mutex<Box<dyn Exchange>>>,
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { isa, weights, team, .. } = self;
        formatter.debug_struct("Cpu").field("isa", isa).field("weights", weights).field("team", team).finish()
    }
}

impl Cpu {
    /// A backend on `threads` threads (at least 1) with f32 weights and the best instruction set of the machine.
    ///
    /// # Panics
    /// If the system refuses the threads.
    pub fn new(threads: usize) -> Self {
        Self::with(CpuConfig::new(threads))
    }

    /// A backend as configured.
    ///
    /// # Panics
    /// If this machine lacks the instruction set, or refuses the threads.
    pub fn with(config: CpuConfig) -> Self {
        let CpuConfig { threads, isa, weights } = config;
        assert!(isa.is_available(), "{isa} is not available on this machine");
        let team = Team::new(threads);
        let (prepared, largest) = (Mutex::default(), Mutex::default());
        Self { isa, weights, team, prepared, largest, marks: Marks::default(), exchange: None }
    }

    /// The same as one rank of a group.
    pub fn in_group(self, exchange: impl Exchange + 'static) -> Self {
        Self { exchange: Some(Mutex::new(Box::new(exchange))), ..self }
    }

    /// A backend for each of `ranks` ranks in this process, by rank. They share the threads as evenly as they come; each has at
    /// least one.
    ///
    /// # Panics
    /// As [`Cpu::with`].
    pub fn group(config: CpuConfig, ranks: usize) -> Vec<Self> {
        if ranks == 1 {
            return vec![Self::with(config)];
        }
        let threads = |rank: usize| config.threads / ranks + usize::from(rank < config.threads % ranks);
        let of_rank =
            |(rank, seat)| Self::with(CpuConfig { threads: threads(rank).max(1), ..config }).in_group(seat);
        seats(ranks).into_iter().enumerate().map(of_rank).collect()
    }

    fn product(&self, input: Input<'_>, weight: &PackedMatrix, out: &mut CpuBuffer) {
        let width = out.width();
        assert_eq!(width, weight.outputs(), "output width and weight differ");
        let out = Disjoint::new(out.data_mut());
        self.multiply(input, weight, &Store { out, width });
    }

    fn multiply(&self, input: Input<'_>, weight: &PackedMatrix, epilogue: &dyn Epilogue) {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        product::multiply((self.isa, &self.team), &mut prepared, input, weight, epilogue);
    }

    /// # Panics
    /// If `rows` of `buffer` are not there, or one of them twice.
    fn check_rows(&self, rows: Rows<'_>, buffer: &CpuBuffer) {
        if let Rows::At(rows) = rows {
            self.marks.check_distinct(buffer.rows(), rows.iter().map(|&row| row as usize));
        }
    }

    /// Calls `row` with each of `0..rows`, on all threads where that is worth it for rows of `width`.
    fn each_row(&self, rows: usize, width: usize, row: &(dyn Fn(usize) + Sync)) {
        /// Values below which another thread would take longer to come.
        const PARALLEL_FROM: usize = 1 << 15;
        if rows * width < PARALLEL_FROM {
            (0..rows).for_each(row);
        } else {
            self.team.run(rows, row);
        }
    }
}

impl Backend for Cpu {
    type Buffer = CpuBuffer;
    type Matrix = PackedMatrix;
    type KvCache = KvCache;
    type Report<T: Reported> = Vec<T>;
    type Mark = Option<Instant>;
    type Parcel = Vec<f32>;

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::of(self.weights, self.isa)
    }

    fn buffer(&self, capacity: usize, width: usize) -> CpuBuffer {
        CpuBuffer::new(capacity, width)
    }

    fn matrix(&self, weight: &Weight<'_>) -> PackedMatrix {
        PackedMatrix::pack((self.isa, &self.team), self.weights, weight, Order::Given)
    }

    fn gate_matrix(&self, weights: &Weight<'_>) -> PackedMatrix {
        PackedMatrix::pack((self.isa, &self.team), self.weights, weights, Order::Paired)
    }

    fn kv_cache(&self, shape: KvShape) -> KvCache {
        KvCache::new(self.weights.kv(), shape)
    }

    fn upload(&self, values: &[f32], to: &mut CpuBuffer, rows: Rows<'_>) {
        assert_eq!(values.len(), rows.len() * to.width(), "values are not [{}, {}]", rows.len(), to.width());
        self.check_rows(rows, to);
        let (width, to) = (to.width(), RowsOf::new(to));
        self.each_row(rows.len(), width, &|i| {
            to.row(rows.index(i)).copy_from_slice(&values[i * width..][..width]);
        });
    }

    fn download(&self, from: &CpuBuffer, rows: usize, to: &mut Vec<f32>) {
        to.clear();
        to.extend_from_slice(&from.data()[..rows * from.width()]);
    }

    fn mark(&self, mark: &mut Option<Instant>) {
        *mark = Some(Instant::now());
    }

    fn between(&self, from: &Option<Instant>, to: &Option<Instant>) -> Duration {
        from.zip(*to).map_or(Duration::ZERO, |(from, to)| to - from)
    }

    fn new_report<T: Reported>(&self, values: usize) -> Vec<T> {
        Vec::with_capacity(values)
    }

    fn report(&self, from: &CpuBuffer, rows: usize, to: &mut Vec<f32>) {
        self.download(from, rows, to);
    }

    fn receive<T: Reported>(&self, report: &mut Vec<T>, to: &mut Vec<T>) {
        std::mem::swap(report, to);
        report.clear();
    }

    fn new_parcel(&self, rows: usize, width: usize) -> Vec<f32> {
        Vec::with_capacity(rows * width)
    }

    fn hand_over(&self, from: &CpuBuffer, rows: usize, parcel: &mut Vec<f32>) {
        self.download(from, rows, parcel);
    }

    fn take_over(&self, parcel: &mut Vec<f32>, to: &mut CpuBuffer, rows: Rows<'_>) {
        self.upload(parcel, to, rows);
    }

    fn scatter(&self, from: &CpuBuffer, to: &mut CpuBuffer, rows: Rows<'_>) {
        self.check_rows(rows, to);
        let (width, to) = (to.width(), RowsOf::new(to));
        self.each_row(rows.len(), width, &|i| to.row(rows.index(i)).copy_from_slice(from.row(i)));
    }

    fn embed(&self, table: &CpuBuffer, tokens: &[u32], scale: f32, out: &mut CpuBuffer) {
        let (width, out) = (out.width(), RowsOf::new(out));
        self.each_row(tokens.len(), width, &|i| {
            for (out, value) in out.row(i).iter_mut().zip(table.row(tokens[i] as usize)) {
                *out = value * scale;
            }
        });
    }

    fn matmul(&self, x: &CpuBuffer, rows: usize, weight: &PackedMatrix, out: &mut CpuBuffer) {
        self.product(Input { first: x, second: None, rows: Rows::First(rows) }, weight, out);
    }

    fn largest_outputs(
        &self,
        x: &CpuBuffer,
        rows: usize,
        weight: &PackedMatrix,
        largest: &mut Vec<LargestOutput>,
    ) {
        let mut found = self.largest.lock().unwrap_or_else(PoisonError::into_inner);
        found.reset(rows);
        let input = Input { first: x, second: None, rows: Rows::First(rows) };
        self.multiply(input, weight, &found.of(weight));
        largest.clear();
        largest.extend((0..rows).map(|row| found.of_row(row)));
    }

    fn draw(&self, logits: &mut CpuBuffer, draws: Draws<'_>, drawn: &mut Vec<u32>) {
        thread_local! {
            static SCRATCH: RefCell<DrawScratch> = RefCell::default();
        }
        drawn.clear();
        drawn.resize(draws.rows.len(), 0);
        let (width, logits, drawn) = (logits.width(), RowsOf::new(logits), Disjoint::new(drawn));
        // A weight takes many times what a number does that is only moved.
        self.each_row(draws.rows.len(), 8 * width, &|i| {
            let (row, changes) = (&draws.rows[i], draws.changes_of(i));
            drawn.range(i, 1)[0] =
                SCRATCH.with_borrow_mut(|scratch| draw_on(self.isa, logits.row(i), row, changes, scratch));
        });
    }

    fn all_reduce(&self, x: &mut CpuBuffer, rows: usize) {
        if let Some(exchange) = &self.exchange {
            let width = x.width();
            let mut exchange = exchange.lock().unwrap_or_else(PoisonError::into_inner);
            exchange.all_reduce(&mut x.data_mut()[..rows * width]);
        }
    }

    fn adapter(
        &self,
        latent: &CpuBuffer,
        embedding: &CpuBuffer,
        rows: Rows<'_>,
        weight: &PackedMatrix,
        out: &mut CpuBuffer,
    ) {
        self.product(Input { first: latent, second: Some(embedding), rows }, weight, out);
    }

    fn rms_norm(&self, x: &CpuBuffer, rows: Rows<'_>, weight: &[f32], eps: f32, out: &mut CpuBuffer) {
        let to = RowsOf::new(out);
        self.each_row(rows.len(), weight.len(), &|i| {
            rowwise::rms_norm(self.isa, x.row(rows.index(i)), weight, eps, to.row(i));
        });
    }

    fn add_rms_norm(&self, x: &mut CpuBuffer, residual: &CpuBuffer, rows: usize, weight: &[f32], eps: f32) {
        let x = RowsOf::new(x);
        self.each_row(rows, weight.len(), &|i| {
            rowwise::add_rms_norm(self.isa, x.row(i), residual.row(i), weight, eps);
        });
    }

    fn add_norm_norm(
        &self,
        x: &mut CpuBuffer,
        residual: &CpuBuffer,
        rows: usize,
        NormWeights { first, next, eps }: NormWeights<'_>,
        out: &mut CpuBuffer,
    ) {
        let (x, out) = (RowsOf::new(x), RowsOf::new(out));
        self.each_row(rows, first.len(), &|i| {
            rowwise::add_norm_norm(self.isa, x.row(i), residual.row(i), first, next, eps, out.row(i));
        });
    }

    fn gated(&self, x: &CpuBuffer, rows: usize, weight: &PackedMatrix, out: &mut CpuBuffer) {
        let width = out.width();
        assert_eq!(width, weight.outputs(), "output width and weight differ");
        let out = Disjoint::new(out.data_mut());
        let input = Input { first: x, second: None, rows: Rows::First(rows) };
        self.multiply(input, weight, &Gate { out, width });
    }

    fn rotate_and_store(
        &self,
        qkv: &mut CpuBuffer,
        rotation: Rotation<'_, CpuBuffer>,
        rows: KvRows<'_>,
        stopped: Option<Stopped<'_, CpuBuffer>>,
        layer: usize,
        cache: &mut KvCache,
    ) {
        let width = qkv.width();
        let qkv = RowsOf::new(qkv);
        let has_stopped =
            |i: usize| stopped.is_some_and(|Stopped { flags, rows }| flags.row(rows[i] as usize)[0] != 0.0);
        let writing = (0..rows.len()).filter(|&i| !has_stopped(i)).map(|i| &rows.rows[i]);
        let place = |row| rows.written_block(row) * BLOCK_POSITIONS + row.position as usize % BLOCK_POSITIONS;
        self.marks.check_distinct(cache.shape().blocks * BLOCK_POSITIONS, writing.map(place));
        rotate::rotate_and_store(self.isa, rotation, rows, layer, cache, |rotate| {
            self.each_row(rows.len(), width, &|i| rotate(i, qkv.row(i), has_stopped(i)));
        });
    }

    fn attention(
        &self,
        qkv: &CpuBuffer,
        rows: KvRows<'_>,
        layer: usize,
        cache: &KvCache,
        out: &mut CpuBuffer,
    ) {
        attention::attention((self.isa, &self.team), qkv.data(), rows, layer, cache, out.data_mut());
    }

    fn add_norm_commit(
        &self,
        x: &mut CpuBuffer,
        residual: &CpuBuffer,
        Norm { weight, eps }: Norm<'_>,
        Commit { latents, rows, flags, stops }: Commit<'_, CpuBuffer>,
        changes: &mut Vec<LatentChange>,
    ) {
        self.check_rows(Rows::At(rows), latents);
        changes.clear();
        changes.resize(rows.len(), LatentChange::default());
        let (x, latents, to) = (RowsOf::new(x), RowsOf::new(latents), Disjoint::new(changes));
        let flags = RowsOf::new(flags);
        self.each_row(rows.len(), weight.len(), &|i| {
            let (row, x, residual) = (rows[i] as usize, x.row(i), residual.row(i));
            let flag = &mut flags.row(row)[0];
            if *flag != 0.0 {
                return rowwise::add(x, residual);
            }
            let change = rowwise::add_norm_commit(self.isa, x, residual, weight, eps, latents.row(row));
            *flag = f32::from(stops.get(i).copied().unwrap_or_default().is_met(&change));
            to.range(i, 1)[0] = change;
        });
    }
}
