//! The operations a device must offer.

use std::time::Duration;

use crate::cpu::Arithmetic;
use crate::draw::Draws;
use crate::kv::{KvRows, KvShape};
use crate::report::Reported;
use crate::weight::Weight;

/// Which rows of a buffer an operation reads or writes.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// The first n rows.
    First(usize),
    /// These rows, in this order. No row may be there twice where an operation writes them.
    At(&'a [u32]),
}

impl Rows<'_> {
    /// How many rows.
    pub fn len(&self) -> usize {
        match self {
            Self::First(count) => *count,
            Self::At(indices) => indices.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer row behind the i-th row of the operation.
    pub fn index(&self, i: usize) -> usize {
        match self {
            Self::First(_) => i,
            Self::At(indices) => indices[i] as usize,
        }
    }
}

/// How one core iteration changed a row's latent; all four are sums over the row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LatentChange {
    /// Σ (current − previous)².
    pub difference_squared: f32,
    /// Σ current².
    pub current_squared: f32,
    /// Σ previous².
    pub previous_squared: f32,
    /// Σ current · previous.
    pub dot: f32,
}

impl LatentChange {
    /// ‖current − previous‖ / ‖current‖.
    pub fn relative_difference(&self) -> f64 {
        f64::from(self.difference_squared).sqrt() / f64::from(self.current_squared).sqrt()
    }

    /// 1 − cos(previous, current).
    pub fn cosine_distance(&self) -> f64 {
        let sizes = f64::from(self.current_squared).sqrt() * f64::from(self.previous_squared).sqrt();
        1.0 - f64::from(self.dot) / sizes
    }
}

/// By what change of its latent a row stops.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Stop {
    /// By none.
    #[default]
    Never,
    /// By a [`LatentChange::relative_difference`] below this.
    RelativeDifference(f64),
    /// By a [`LatentChange::cosine_distance`] below this.
    CosineDistance(f64),
}

impl Stop {
    /// Whether a row that changed so stops. A NaN never stops one.
    pub fn is_met(self, change: &LatentChange) -> bool {
        match self {
            Self::Never => false,
            Self::RelativeDifference(limit) => change.relative_difference() < limit,
            Self::CosineDistance(limit) => change.cosine_distance() < limit,
        }
    }
}

/// Which rows of a launch have stopped before it: those take part and change nothing.
#[derive(Debug)]
pub struct Stopped<'a, B> {
    /// `[latents, 1]`: zero for one that has not.
    pub flags: &'a B,
    /// Where each row of the launch has its latent, and its flag.
    pub rows: &'a [u32],
}

impl<B> Clone for Stopped<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Stopped<'_, B> {}

/// What keys and queries are turned by.
#[derive(Debug)]
pub struct Rotation<'a, B> {
    /// Added to queries and keys before, `[2, width]`.
    pub bias: Option<&'a [f32]>,
    /// `[positions, head_dim]`, a cosine and a sine per pair.
    pub angles: &'a B,
}

/// Where new latents go.
#[derive(Debug)]
pub struct Commit<'a, B> {
    /// `[latents, width]`.
    pub latents: &'a mut B,
    /// The row of each; none is there twice.
    pub rows: &'a [u32],
    /// As in [`Stopped`]. Those that have stopped stay as they are; those that stop now are flagged.
    pub flags: &'a mut B,
    /// By what each row stops; without any none does.
    pub stops: &'a [Stop],
}

/// The largest output of a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LargestOutput {
    /// Which output.
    pub output: u32,
    /// Its value.
    pub value: f32,
}

impl LargestOutput {
    /// The larger of this and of one behind it: this one of equals, never that of a NaN unless both are.
    pub fn or_later(self, later: Self) -> Self {
        if later.value > self.value || self.value.is_nan() && !later.value.is_nan() { later } else { self }
    }
}

/// A norm.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// `[width]`.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
}

/// Two norms, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct NormWeights<'a> {
    /// Of the first, `[width]`.
    pub first: &'a [f32],
    /// Of the one on its result, `[width]`.
    pub next: &'a [f32],
    /// Added to both mean squares.
    pub eps: f32,
}

/// A device: memory for activations, weights and K/V, and the operations of a tick.
///
/// A buffer is an f32 matrix `[capacity, width]`, row-major. Operations panic when shapes do not fit, before they
/// touch memory: shapes are the caller's invariant, never a request's.
pub trait Backend: Send + 'static {
    /// Activations, `[capacity, width]`.
    type Buffer: Send;
    /// A weight `[outputs, inputs]`, in the device's own layout.
    type Matrix: Send;
    /// The K/V blocks of all lanes.
    type KvCache: Send;
    /// What operations have to say, on its way to the host. Used again and again, for its memory.
    type Report<T: Reported>: Send;
    /// A moment in the order of operations.
    type Mark: Default + Send;
    /// Rows on their way to another device of this process. Used again and again, for its memory.
    type Parcel: Send;

    /// What decides the bits of results beside inputs.
    fn arithmetic(&self) -> Arithmetic;
    /// A zeroed buffer `[capacity, width]`.
    fn buffer(&self, capacity: usize, width: usize) -> Self::Buffer;
    /// A weight `[outputs, inputs]`.
    fn matrix(&self, weight: &Weight<'_>) -> Self::Matrix;
    /// The weights of a gated product, `[2 · outputs, inputs]`: gate, then up.
    fn gate_matrix(&self, weights: &Weight<'_>) -> Self::Matrix;
    /// A zeroed K/V cache.
    fn kv_cache(&self, shape: KvShape) -> Self::KvCache;

    /// Makes `mark` the moment between the operations before and those to come.
    fn mark(&self, mark: &mut Self::Mark);
    /// Whether a moment that was marked is past. Does not wait for it.
    fn is_past(&self, mark: &Self::Mark) -> bool {
        let _ = mark;
        true
    }
    /// How long the device took from one moment to another, both of which were marked. Waits for the second.
    fn between(&self, from: &Self::Mark, to: &Self::Mark) -> Duration;
    /// Begins all that was asked for, where operations may wait to be begun together. Work of several ranks needs it: one must not
    /// keep the others waiting for what it has only noted.
    fn flush(&self) {}

    /// Waits until the device has done all that it was asked for, where operations do not.
    fn wait(&self) {}

    /// Copies `values` (`[rows, width]`) into `rows` of `to`.
    fn upload(&self, values: &[f32], to: &mut Self::Buffer, rows: Rows<'_>);
    /// Replaces `to` by the first `rows` rows of `from`, `[rows, width]`, at once.
    fn download(&self, from: &Self::Buffer, rows: usize, to: &mut Vec<f32>);
    /// A report that says nothing, with room for so many values.
    fn new_report<T: Reported>(&self, values: usize) -> Self::Report<T>;
    /// [`Backend::download`] as a report.
    fn report(&self, from: &Self::Buffer, rows: usize, to: &mut Self::Report<f32>);
    /// Replaces `to` by what the last operation that wrote to `report` had to say. Waits for that operation, and for none behind
    /// it. What was said is taken away.
    fn receive<T: Reported>(&self, report: &mut Self::Report<T>, to: &mut Vec<T>);
    /// Whether operations are only begun when their calls return, so that more can be asked for meanwhile.
    fn is_asynchronous(&self) -> bool {
        false
    }
    /// A parcel for so many rows `[rows, width]` from this device. It is always the same device that takes them over.
    fn new_parcel(&self, rows: usize, width: usize) -> Self::Parcel;
    /// Makes `parcel` hold the first `rows` rows of `from`, once what it held before was taken over.
    fn hand_over(&self, from: &Self::Buffer, rows: usize, parcel: &mut Self::Parcel);
    /// Copies the rows that another device handed over into `rows` of `to`, once they are there: as many.
    fn take_over(&self, parcel: &mut Self::Parcel, to: &mut Self::Buffer, rows: Rows<'_>);
    /// Whether this device is linked to those of the stage before and of the next in other processes: then [`Backend::send_on`] and
    /// [`Backend::receive_rows`] take parcels there and fetch them.
    fn is_linked(&self) -> bool {
        false
    }
    /// Ends what is under way from them and to them, which nobody waits for any more: before memory is freed, which would.
    fn unlink(&self) {}
    /// Sends the rows that this device has handed over by `parcel` to the one of the next stage.
    ///
    /// # Panics
    /// If it is linked to none.
    fn send_on(&self, parcel: &mut Self::Parcel) {
        let _ = parcel;
        panic!("a device that is linked to none sends rows on");
    }
    /// Makes `parcel`, which is this device's, hold the next rows that the device of the stage before sends, `rows` of them, once
    /// what it held before was taken over.
    ///
    /// # Panics
    /// If it is linked to none.
    fn receive_rows(&self, parcel: &mut Self::Parcel, rows: usize) {
        let _ = (parcel, rows);
        panic!("a device that is linked to none receives rows");
    }
    /// Copies the first rows of `from` into `rows` of `to`.
    fn scatter(&self, from: &Self::Buffer, to: &mut Self::Buffer, rows: Rows<'_>);

    /// `out[i] = table[tokens[i]] · scale`, with `table` `[vocabulary, width]`.
    fn embed(&self, table: &Self::Buffer, tokens: &[u32], scale: f32, out: &mut Self::Buffer);
    /// `out[i] = weight · x[i]` for the first `rows` rows.
    fn matmul(&self, x: &Self::Buffer, rows: usize, weight: &Self::Matrix, out: &mut Self::Buffer);
    /// Reports the largest value of `weight · x[i]` for each of the first `rows` rows, without keeping the
    /// product: the lowest of equal ones, never that of a NaN unless all are.
    fn largest_outputs(
        &self,
        x: &Self::Buffer,
        rows: usize,
        weight: &Self::Matrix,
        largest: &mut Self::Report<LargestOutput>,
    );
    /// Reports an output for each of `draws`, drawn from that row of `logits`, which is changed as it says.
    fn draw(&self, logits: &mut Self::Buffer, draws: Draws<'_>, drawn: &mut Self::Report<u32>);
    /// Replaces the first `rows` rows of `x` by their sum over all ranks of the group that this device is one of, added up in
    /// the order of ranks. All of them call it alike. A device that is alone has nothing to add.
    fn all_reduce(&self, x: &mut Self::Buffer, rows: usize) {
        let _ = (x, rows);
    }
    /// Over how many ranks [`Backend::join_outputs`] goes; none where it is not to be called.
    fn ranks_joined(&self) -> Option<usize> {
        None
    }
    /// Puts the outputs of all ranks side by side: row i of `whole` becomes row i of `part` of rank 0, then that of rank 1, and so on,
    /// for the first `rows` rows. Those of a rank begin at its place of `starts`, `[ranks + 1]`, which ends with all of them. All
    /// ranks call it alike, but for `whole`: only some may want it.
    fn join_outputs(
        &self,
        part: &Self::Buffer,
        rows: usize,
        starts: &[u32],
        whole: Option<&mut Self::Buffer>,
    ) {
        let _ = (part, rows, starts, whole);
        unreachable!("outputs that are not joined here");
    }
    /// `out[i] = weight · (latent[rows[i]], embedding[rows[i]])`: a product with the concatenation of the two, without
    /// building it.
    fn adapter(
        &self,
        latent: &Self::Buffer,
        embedding: &Self::Buffer,
        rows: Rows<'_>,
        weight: &Self::Matrix,
        out: &mut Self::Buffer,
    );
    /// `out[i] = x[rows[i]] / rms(x[rows[i]]) · weight`.
    fn rms_norm(&self, x: &Self::Buffer, rows: Rows<'_>, weight: &[f32], eps: f32, out: &mut Self::Buffer);
    /// `x[i] = rms_norm(x[i] + residual[i])` for the first `rows` rows, in place.
    fn add_rms_norm(
        &self,
        x: &mut Self::Buffer,
        residual: &Self::Buffer,
        rows: usize,
        weight: &[f32],
        eps: f32,
    );
    /// `x[i] = rms_norm(x[i] + residual[i])` by `weight`, and `out[i] = rms_norm(x[i])` by `next`, in one pass.
    fn add_norm_norm(
        &self,
        x: &mut Self::Buffer,
        residual: &Self::Buffer,
        rows: usize,
        weights: NormWeights<'_>,
        out: &mut Self::Buffer,
    );
    /// `out[i] = silu(gate · x[i]) · (up · x[i])` for the first `rows` rows, with `weight` from
    /// [`Backend::gate_matrix`].
    fn gated(&self, x: &Self::Buffer, rows: usize, weight: &Self::Matrix, out: &mut Self::Buffer);

    /// Adds the bias to the queries and keys of `qkv` (`[rows, 3 · width]`), rotates both, and writes keys and values of `layer`
    /// to each row's slot of its lane, but for rows that have stopped. Queries stay in `qkv`.
    fn rotate_and_store(
        &self,
        qkv: &mut Self::Buffer,
        rotation: Rotation<'_, Self::Buffer>,
        rows: KvRows<'_>,
        stopped: Option<Stopped<'_, Self::Buffer>>,
        layer: usize,
        cache: &mut Self::KvCache,
    );
    /// Causal attention of each row's queries in `qkv` over positions `0..=position` of its lane:
    /// `out[i] = softmax(q · kᵀ / √head_dim) · v`, per head.
    fn attention(
        &self,
        qkv: &Self::Buffer,
        rows: KvRows<'_>,
        layer: usize,
        cache: &Self::KvCache,
        out: &mut Self::Buffer,
    );
    /// `latents[rows[i]] = rms_norm(x[i] + residual[i])`, in one pass; reports how far each row moved, which of one that has
    /// stopped is nowhere. Leaves `x[i] + residual[i]` in `x`.
    fn add_norm_commit(
        &self,
        x: &mut Self::Buffer,
        residual: &Self::Buffer,
        norm: Norm<'_>,
        commit: Commit<'_, Self::Buffer>,
        changes: &mut Self::Report<LatentChange>,
    );
}
