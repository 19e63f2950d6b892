//! The backend's operations: shapes are checked here, then kernels are launched.

use std::time::Duration;

use super::Cuda;
use super::buffer::{CudaBuffer, CudaCache, CudaParcel, CudaReport};
use super::device::{Argument, Device, Grid, Kernel};
use super::matrix::{CudaMatrix, Order, Values};
use super::plan::Planned;
use super::product::{Epilogue, Input};
use crate::backend::{
    Backend, Commit, LargestOutput, LatentChange, Norm, NormWeights, Rotation, Rows, Stop, Stopped,
};
use crate::bytes::{bytes, bytes_mut};
use crate::cpu::Arithmetic;
use crate::draw::{Draw, Draws, LogitChange, MOST_OUTPUTS};
use crate::kv::{KvRows, KvShape};
use crate::report::Reported;
use crate::weight::Weight;

/// Values of a head at most, and a multiple of two: see `attention.cu`.
const MAX_HEAD_DIM: usize = 256;

impl<D: Device> Backend for Cuda<D> {
    type Buffer = CudaBuffer<D>;
    type Matrix = CudaMatrix<D>;
    type KvCache = CudaCache<D>;
    type Report<T: Reported> = CudaReport<D, T>;
    type Mark = Option<D::Mark>;
    type Parcel = CudaParcel<D>;

    fn arithmetic(&self) -> Arithmetic {
        match self.values {
            Values::F32 => Arithmetic::CudaF32,
            Values::Bf16 => Arithmetic::CudaBf16,
        }
    }

    fn buffer(&self, capacity: usize, width: usize) -> Self::Buffer {
        CudaBuffer { memory: self.device.allocate(4 * capacity * width), capacity, width }
    }

    fn matrix(&self, weight: &Weight<'_>) -> Self::Matrix {
        self.pack(weight, Order::Given)
    }

    fn gate_matrix(&self, weights: &Weight<'_>) -> Self::Matrix {
        self.pack(weights, Order::GatesAndUps)
    }

    fn kv_cache(&self, shape: KvShape) -> Self::KvCache {
        let head_dim = shape.head_dim;
        assert!(
            head_dim.is_multiple_of(2) && head_dim <= MAX_HEAD_DIM,
            "head_dim is {head_dim}: backend cuda takes even ones up to {MAX_HEAD_DIM}"
        );
        CudaCache {
            memory: self.device.allocate(self.values.bytes() * shape.blocks * shape.block_len()),
            shape,
        }
    }

    fn upload(&self, values: &[f32], to: &mut Self::Buffer, rows: Rows<'_>) {
        assert_eq!(values.len(), rows.len() * to.width, "values are not [{}, {}]", rows.len(), to.width);
        let mut scratch = self.scratch();
        let indices = scratch.rows(&self.device, rows, to.capacity);
        match rows {
            Rows::First(_) => self.device.upload(bytes(values), &to.memory),
            Rows::At(_) if values.is_empty() => {}
            Rows::At(_) => {
                let from = Argument::start(scratch.values.upload(&self.device, values));
                self.run(
                    Kernel::Scatter,
                    Grid::of(rows.len()),
                    &[from, to.start(), indices, Argument::count(to.width)],
                );
            }
        }
    }

    fn download(&self, from: &Self::Buffer, rows: usize, to: &mut Vec<f32>) {
        from.check(rows, from.width);
        to.clear();
        to.resize(rows * from.width, 0.0);
        if !to.is_empty() {
            self.device.download(&from.memory, bytes_mut(to));
        }
    }

    fn mark(&self, mark: &mut Option<D::Mark>) {
        self.device.mark(mark);
    }

    fn is_past(&self, mark: &Option<D::Mark>) -> bool {
        mark.as_ref().is_none_or(|mark| self.device.is_past(mark))
    }

    fn between(&self, from: &Option<D::Mark>, to: &Option<D::Mark>) -> Duration {
        from.as_ref().zip(to.as_ref()).map_or(Duration::ZERO, |(from, to)| self.device.between(from, to))
    }

    fn new_report<T: Reported>(&self, values: usize) -> Self::Report<T> {
        CudaReport::new(&self.device, values)
    }

    fn report(&self, from: &Self::Buffer, rows: usize, to: &mut Self::Report<f32>) {
        from.check(rows, from.width);
        to.clear();
        if rows > 0 {
            to.send(&self.device, &from.memory, rows * from.width);
        }
    }

    fn receive<T: Reported>(&self, report: &mut Self::Report<T>, to: &mut Vec<T>) {
        to.clear();
        report.take(&self.device, to);
    }

    fn is_asynchronous(&self) -> bool {
        true
    }

    fn new_parcel(&self, rows: usize, width: usize) -> CudaParcel<D> {
        CudaParcel { parcel: self.device.parcel(4 * rows * width), capacity: rows, width, rows: 0 }
    }

    fn hand_over(&self, from: &Self::Buffer, rows: usize, parcel: &mut CudaParcel<D>) {
        from.check(rows, parcel.width);
        assert!(rows <= parcel.capacity, "{rows} rows of a parcel of {}", parcel.capacity);
        parcel.rows = rows;
        if rows > 0 {
            self.device.put(&from.memory, 4 * rows * from.width, &mut parcel.parcel);
        }
    }

    fn take_over(&self, parcel: &mut CudaParcel<D>, to: &mut Self::Buffer, rows: Rows<'_>) {
        assert_eq!(parcel.rows, rows.len(), "as many rows as were handed over");
        assert_eq!(parcel.width, to.width, "a buffer's width differs");
        if rows.is_empty() {
            return;
        }
        let (bytes, parcel) = (4 * parcel.rows * parcel.width, &mut parcel.parcel);
        let mut scratch = self.scratch();
        let indices = scratch.rows(&self.device, rows, to.capacity);
        match rows {
            Rows::First(_) => self.device.take(parcel, bytes, &to.memory),
            Rows::At(_) => {
                let from = scratch.values.reserve(&self.device, bytes);
                self.device.take(parcel, bytes, from);
                let arguments = [Argument::start(from), to.start(), indices, Argument::count(to.width)];
                self.run(Kernel::Scatter, Grid::of(rows.len()), &arguments);
            }
        }
    }

    fn is_linked(&self) -> bool {
        self.device.is_linked()
    }

    fn unlink(&self) {
        self.device.unlink();
    }

    fn send_on(&self, parcel: &mut CudaParcel<D>) {
        if parcel.rows > 0 {
            self.device.send_on(&mut parcel.parcel, 4 * parcel.rows * parcel.width);
        }
    }

    fn receive_rows(&self, parcel: &mut CudaParcel<D>, rows: usize) {
        assert!(rows <= parcel.capacity, "{rows} rows of a parcel of {}", parcel.capacity);
        parcel.rows = rows;
        if rows > 0 {
            self.device.receive(&mut parcel.parcel, 4 * rows * parcel.width);
        }
    }

    fn scatter(&self, from: &Self::Buffer, to: &mut Self::Buffer, rows: Rows<'_>) {
        from.check(rows.len(), to.width);
        let indices = self.scratch().rows(&self.device, rows, to.capacity);
        let arguments = [from.start(), to.start(), indices, Argument::count(to.width)];
        self.run_rows(Kernel::Scatter, rows.len(), &arguments);
    }

    fn embed(&self, table: &Self::Buffer, tokens: &[u32], scale: f32, out: &mut Self::Buffer) {
        out.check(tokens.len(), table.width);
        let indices = self.scratch().indices(&self.device, tokens, table.capacity);
        let arguments = [table.start(), indices, scale.into(), out.start(), Argument::count(out.width)];
        self.run_rows(Kernel::Embed, tokens.len(), &arguments);
    }

    fn matmul(&self, x: &Self::Buffer, rows: usize, weight: &Self::Matrix, out: &mut Self::Buffer) {
        out.check(rows, weight.rows);
        let input = Input { first: x, second: None, rows: Rows::First(rows) };
        self.multiply(&mut self.scratch(), &input, weight, Epilogue::Store, out.start());
    }

    fn largest_outputs(
        &self,
        x: &Self::Buffer,
        rows: usize,
        weight: &Self::Matrix,
        largest: &mut Self::Report<LargestOutput>,
    ) {
        largest.clear();
        if rows == 0 {
            return;
        }
        let mut scratch = self.scratch();
        let keys = scratch.keys.reserve(&self.device, 8 * rows);
        self.device.clear(keys, 8 * rows);
        let out = Argument::start(keys);
        let input = Input { first: x, second: None, rows: Rows::First(rows) };
        self.multiply(&mut scratch, &input, weight, Epilogue::Largest, out);
        largest.send(&self.device, scratch.keys.reserve(&self.device, 8 * rows), rows);
    }

    fn draw(&self, logits: &mut Self::Buffer, draws: Draws<'_>, drawn: &mut Self::Report<u32>) {
        let (rows, outputs) = (draws.rows.len(), logits.width);
        drawn.clear();
        if rows == 0 {
            return;
        }
        logits.check(rows, outputs);
        assert!((1..=MOST_OUTPUTS).contains(&outputs), "a draw from {outputs} logits");
        let changes = (0..rows).flat_map(|row| draws.changes_of(row));
        assert!(changes.clone().all(|change| (change.output as usize) < outputs), "a change of no logit");
        let scratch = &mut *self.scratch();
        scratch.change_words.clear();
        scratch.change_words.extend(draws.changes.iter().flat_map(change_words));
        scratch.draw_words.clear();
        scratch.draw_words.extend(draws.rows.iter().flat_map(draw_words));
        let changes = Argument::start(scratch.logit_changes.upload(&self.device, &scratch.change_words));
        let how = Argument::start(scratch.draws.upload(&self.device, &scratch.draw_words));
        let on_device = scratch.drawn.reserve(&self.device, u32::BYTES * rows);
        let arguments = [logits.start(), Argument::count(outputs), how, changes, Argument::start(on_device)];
        self.run_rows(Kernel::Draw, rows, &arguments);
        drawn.send(&self.device, on_device, rows);
    }

    fn all_reduce(&self, x: &mut Self::Buffer, rows: usize) {
        let Some(ranks) = self.device.ranks() else { return };
        x.check(rows, x.width);
        if rows == 0 {
            return;
        }
        let numbers = rows * x.width;
        let mut scratch = self.scratch();
        let parts = scratch.parts.reserve(&self.device, 4 * numbers * ranks);
        self.device.all_gather(&x.memory, 4 * numbers, parts);
        let grid = Grid::of(numbers.div_ceil(Kernel::AddRanks.threads()));
        let [ranks, count] = [ranks, numbers].map(Argument::count);
        self.run(Kernel::AddRanks, grid, &[Argument::start(parts), ranks, count, x.start()]);
    }

    fn ranks_joined(&self) -> Option<usize> {
        self.device.ranks()
    }

    fn join_outputs(
        &self,
        part: &Self::Buffer,
        rows: usize,
        starts: &[u32],
        whole: Option<&mut Self::Buffer>,
    ) {
        let ranks = starts.len() - 1;
        part.check(rows, part.width);
        if rows == 0 {
            return;
        }
        let widest = starts.windows(2).map(|pair| (pair[1] - pair[0]) as usize).max().unwrap_or(0);
        assert!(part.width <= widest, "a part of {} outputs, where none has more than {widest}", part.width);
        let scratch = &mut *self.scratch();
        // Of every rank as much as of the one that has most, since all gather alike.
        let stride = rows * widest;
        let own = scratch.own_part.reserve(&self.device, 4 * stride);
        let arguments = [part.start(), Argument::start(own), Argument::NULL, Argument::count(part.width)];
        self.run_rows(Kernel::Scatter, rows, &arguments);
        let parts = scratch.parts.reserve(&self.device, 4 * stride * ranks);
        self.device.all_gather(own, 4 * stride, parts);
        // What one rank goes on with is no part of what all do.
        self.device.flush();
        let parts = Argument::start(parts);
        if let Some(whole) = whole {
            let outputs = starts[ranks] as usize;
            whole.check(rows, outputs);
            let starts = Argument::start(scratch.starts.upload(&self.device, starts));
            let grid = Grid { x: rows, y: ranks };
            self.run(Kernel::JoinParts, grid, &[parts, starts, Argument::count(stride), whole.start()]);
        }
    }

    fn flush(&self) {
        self.device.flush();
    }

    fn wait(&self) {
        self.device.wait();
    }

    fn adapter(
        &self,
        latent: &Self::Buffer,
        embedding: &Self::Buffer,
        rows: Rows<'_>,
        weight: &Self::Matrix,
        out: &mut Self::Buffer,
    ) {
        out.check(rows.len(), weight.rows);
        let input = Input { first: latent, second: Some(embedding), rows };
        self.multiply(&mut self.scratch(), &input, weight, Epilogue::Store, out.start());
    }

    fn rms_norm(&self, x: &Self::Buffer, rows: Rows<'_>, weight: &[f32], eps: f32, out: &mut Self::Buffer) {
        x.check(0, weight.len());
        out.check(rows.len(), weight.len());
        let mut scratch = self.scratch();
        let indices = scratch.rows(&self.device, rows, x.capacity);
        let constant = Argument::start(scratch.constants.get(&self.device, weight));
        let width = Argument::count(weight.len());
        let arguments = [x.start(), indices, constant, eps.into(), width, out.start()];
        self.run_rows(Kernel::RmsNorm, rows.len(), &arguments);
    }

    fn add_rms_norm(
        &self,
        x: &mut Self::Buffer,
        residual: &Self::Buffer,
        rows: usize,
        weight: &[f32],
        eps: f32,
    ) {
        x.check(rows, weight.len());
        residual.check(rows, weight.len());
        let constant = Argument::start(self.scratch().constants.get(&self.device, weight));
        let width = Argument::count(weight.len());
        let arguments = [x.start(), residual.start(), constant, eps.into(), width];
        self.run_rows(Kernel::AddRmsNorm, rows, &arguments);
    }

    fn add_norm_norm(
        &self,
        x: &mut Self::Buffer,
        residual: &Self::Buffer,
        rows: usize,
        NormWeights { first, next, eps }: NormWeights<'_>,
        out: &mut Self::Buffer,
    ) {
        assert_eq!(first.len(), next.len(), "two norms of one row differ in width");
        for buffer in [&*x, residual, &*out] {
            buffer.check(rows, first.len());
        }
        let mut scratch = self.scratch();
        let [first_norm, next_norm] =
            [first, next].map(|weight| Argument::start(scratch.constants.get(&self.device, weight)));
        let width = Argument::count(first.len());
        let arguments = [x.start(), residual.start(), first_norm, next_norm, eps.into(), width, out.start()];
        self.run_rows(Kernel::AddNormNorm, rows, &arguments);
    }

    fn gated(&self, x: &Self::Buffer, rows: usize, weight: &Self::Matrix, out: &mut Self::Buffer) {
        out.check(rows, weight.rows / 2);
        let input = Input { first: x, second: None, rows: Rows::First(rows) };
        self.multiply(&mut self.scratch(), &input, weight, Epilogue::Gate, out.start());
    }

    fn rotate_and_store(
        &self,
        qkv: &mut Self::Buffer,
        Rotation { bias, angles }: Rotation<'_, Self::Buffer>,
        rows: KvRows<'_>,
        stopped: Option<Stopped<'_, Self::Buffer>>,
        layer: usize,
        cache: &mut Self::KvCache,
    ) {
        let width = cache.width();
        qkv.check(rows.len(), 3 * width);
        let positions = rows.rows.iter().map(|row| row.position as usize + 1).max().unwrap_or(0);
        angles.check(positions, cache.shape.head_dim);
        assert!(bias.is_none_or(|bias| bias.len() == 2 * width), "a bias is not [2, {width}]");
        let mut scratch = self.scratch();
        let bias =
            bias.map_or(Argument::NULL, |bias| Argument::start(scratch.constants.get(&self.device, bias)));
        let plan = scratch.plan.get(&self.device, rows, cache.shape).rows;
        let [flags, latents] = match stopped {
            Some(Stopped { flags, rows: latents }) => {
                assert_eq!(latents.len(), rows.len(), "a latent for each row");
                flags.check(0, 1);
                [flags.start(), scratch.indices(&self.device, latents, flags.capacity)]
            }
            None => [Argument::NULL; 2],
        };
        let [layers, layer, heads, head_dim] = cache.arguments(layer);
        let values = Argument::start(&cache.memory);
        let arguments =
            [qkv.start(), bias, angles.start(), plan, flags, latents, layers, layer, heads, head_dim, values];
        let kernel = match self.values {
            Values::F32 => Kernel::RotateAndStoreF32,
            Values::Bf16 => Kernel::RotateAndStoreBf16,
        };
        self.run_rows(kernel, rows.len(), &arguments);
    }

    fn attention(
        &self,
        qkv: &Self::Buffer,
        rows: KvRows<'_>,
        layer: usize,
        cache: &Self::KvCache,
        out: &mut Self::Buffer,
    ) {
        if rows.is_empty() {
            return;
        }
        qkv.check(rows.len(), 3 * cache.width());
        out.check(rows.len(), cache.width());
        let Planned { rows: plan, words, tiles, tile_count } =
            self.scratch().plan.get(&self.device, rows, cache.shape);
        let [layers, layer, heads, head_dim] = cache.arguments(layer);
        let (qkv, values, out) = (qkv.start(), Argument::start(&cache.memory), out.start());
        let KvShape { heads: y, head_dim: dims, .. } = cache.shape;
        match self.values {
            Values::F32 => self.run(
                Kernel::AttentionF32,
                Grid { x: rows.len(), y },
                &[qkv, plan, words, layers, layer, heads, head_dim, values, out],
            ),
            Values::Bf16 => self.run(
                if dims <= 96 { Kernel::AttentionBf16To96 } else { Kernel::AttentionBf16To256 },
                Grid { x: tile_count, y },
                &[qkv, plan, words, tiles, layers, layer, heads, head_dim, values, out],
            ),
        }
    }

    fn add_norm_commit(
        &self,
        x: &mut Self::Buffer,
        residual: &Self::Buffer,
        Norm { weight, eps }: Norm<'_>,
        Commit { latents, rows, flags, stops }: Commit<'_, Self::Buffer>,
        changes: &mut Self::Report<LatentChange>,
    ) {
        changes.clear();
        if rows.is_empty() {
            return;
        }
        x.check(rows.len(), weight.len());
        residual.check(rows.len(), weight.len());
        latents.check(0, weight.len());
        flags.check(latents.capacity, 1);
        let scratch = &mut *self.scratch();
        let indices = scratch.indices(&self.device, rows, latents.capacity);
        let stops = if stops.is_empty() {
            Argument::NULL
        } else {
            assert_eq!(stops.len(), rows.len(), "a stop for each row");
            scratch.stop_words.clear();
            scratch.stop_words.extend(stops.iter().flat_map(stop_words));
            Argument::start(scratch.stops.upload(&self.device, &scratch.stop_words))
        };
        let constant = Argument::start(scratch.constants.get(&self.device, weight));
        let on_device = scratch.changes.reserve(&self.device, LatentChange::BYTES * rows.len());
        let (width, out) = (Argument::count(weight.len()), Argument::start(on_device));
        let (latents, flags) = (latents.start(), flags.start());
        let arguments =
            [x.start(), residual.start(), constant, eps.into(), width, latents, indices, flags, stops, out];
        self.run_rows(Kernel::AddNormCommit, rows.len(), &arguments);
        changes.send(&self.device, on_device, rows.len());
    }
}

impl<D: Device> Cuda<D> {
    fn pack(&self, weight: &Weight<'_>, order: Order) -> CudaMatrix<D> {
        let mut scratch = self.scratch();
        scratch.most_inputs = scratch.most_inputs.max(weight.width());
        CudaMatrix::pack(&self.device, self.values, weight, order)
    }

    /// Runs a kernel of a block per row.
    fn run_rows(&self, kernel: Kernel, rows: usize, arguments: &[Argument]) {
        if rows > 0 {
            self.run(kernel, Grid::of(rows), arguments);
        }
    }
}

/// `Draw` of `draw.cu`.
fn draw_words(draw: &Draw) -> [u64; 5] {
    let Draw { at, temperature, top_k, first_change, changes, .. } = *draw;
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    [
        at,
        draw.top_p_units(),
        draw.least_weight(),
        pair(temperature.to_bits(), top_k),
        pair(first_change, changes),
    ]
}

/// `LogitChange` of `draw.cu`.
fn change_words(change: &LogitChange) -> [u32; 4] {
    let LogitChange { output, bias, repetition, penalty } = *change;
    [output, bias.to_bits(), repetition.to_bits(), penalty.to_bits()]
}

/// `Stop` of `norms.cu`.
fn stop_words(stop: &Stop) -> [u64; 2] {
    match *stop {
        Stop::Never => [0, 0],
        Stop::RelativeDifference(limit) => [limit.to_bits(), 1],
        Stop::CosineDistance(limit) => [limit.to_bits(), 2],
    }
}
