//! A backend for tests of what a broken device does to everyone else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::backend::{
    Backend, Commit, LargestOutput, LatentChange, Norm, NormWeights, Rotation, Rows, Stopped,
};
use crate::cpu::{Arithmetic, Cpu};
use crate::draw::Draws;
use crate::kv::{KvRows, KvShape};
use crate::report::Reported;
use crate::weight::Weight;

type Buffer = <Cpu as Backend>::Buffer;
type Matrix = <Cpu as Backend>::Matrix;
type KvCache = <Cpu as Backend>::KvCache;

/// [`Cpu`], so slow that a long generation of one row at a time takes many seconds, until `broken`; then the next matrix product panics. While
/// `stuck` none ends.
#[derive(Debug)]
pub struct Faulty {
    /// What does the work.
    pub cpu: Cpu,
    /// Set it to break the device.
    pub broken: Arc<AtomicBool>,
    /// Set it to stop the device, and unset it to let it go on.
    pub stuck: Arc<AtomicBool>,
}

impl Backend for Faulty {
    type Buffer = Buffer;
    type Matrix = Matrix;
    type KvCache = KvCache;
    type Report<T: Reported> = <Cpu as Backend>::Report<T>;
    type Mark = <Cpu as Backend>::Mark;
    type Parcel = <Cpu as Backend>::Parcel;

    fn arithmetic(&self) -> Arithmetic {
        self.cpu.arithmetic()
    }

    fn matmul(&self, x: &Buffer, rows: usize, weight: &Matrix, out: &mut Buffer) {
        thread::sleep(Duration::from_micros(20));
        while self.stuck.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!self.broken.load(Ordering::Relaxed), "the device is broken");
        self.cpu.matmul(x, rows, weight, out);
    }

    fn buffer(&self, capacity: usize, width: usize) -> Buffer {
        self.cpu.buffer(capacity, width)
    }

    fn matrix(&self, weight: &Weight<'_>) -> Matrix {
        self.cpu.matrix(weight)
    }

    fn gate_matrix(&self, weights: &Weight<'_>) -> Matrix {
        self.cpu.gate_matrix(weights)
    }

    fn kv_cache(&self, shape: KvShape) -> KvCache {
        self.cpu.kv_cache(shape)
    }

    fn upload(&self, values: &[f32], to: &mut Buffer, rows: Rows<'_>) {
        self.cpu.upload(values, to, rows);
    }

    fn download(&self, from: &Buffer, rows: usize, to: &mut Vec<f32>) {
        self.cpu.download(from, rows, to);
    }

    fn mark(&self, mark: &mut Self::Mark) {
        self.cpu.mark(mark);
    }

    fn between(&self, from: &Self::Mark, to: &Self::Mark) -> Duration {
        self.cpu.between(from, to)
    }

    fn new_report<T: Reported>(&self, values: usize) -> Vec<T> {
        self.cpu.new_report(values)
    }

    fn report(&self, from: &Buffer, rows: usize, to: &mut Vec<f32>) {
        self.cpu.report(from, rows, to);
    }

    fn receive<T: Reported>(&self, report: &mut Vec<T>, to: &mut Vec<T>) {
        self.cpu.receive(report, to);
    }

    fn new_parcel(&self, rows: usize, width: usize) -> Self::Parcel {
        self.cpu.new_parcel(rows, width)
    }

    fn hand_over(&self, from: &Buffer, rows: usize, parcel: &mut Self::Parcel) {
        self.cpu.hand_over(from, rows, parcel);
    }

    fn take_over(&self, parcel: &mut Self::Parcel, to: &mut Buffer, rows: Rows<'_>) {
        self.cpu.take_over(parcel, to, rows);
    }

    fn scatter(&self, from: &Buffer, to: &mut Buffer, rows: Rows<'_>) {
        self.cpu.scatter(from, to, rows);
    }

    fn embed(&self, table: &Buffer, tokens: &[u32], scale: f32, out: &mut Buffer) {
        self.cpu.embed(table, tokens, scale, out);
    }

    fn largest_outputs(&self, x: &Buffer, rows: usize, weight: &Matrix, largest: &mut Vec<LargestOutput>) {
        self.cpu.largest_outputs(x, rows, weight, largest);
    }

    fn draw(&self, logits: &mut Buffer, draws: Draws<'_>, drawn: &mut Vec<u32>) {
        self.cpu.draw(logits, draws, drawn);
    }

    fn all_reduce(&self, x: &mut Buffer, rows: usize) {
        self.cpu.all_reduce(x, rows);
    }

    fn adapter(
        &self,
        latent: &Buffer,
        embedding: &Buffer,
        rows: Rows<'_>,
        weight: &Matrix,
        out: &mut Buffer,
    ) {
        self.cpu.adapter(latent, embedding, rows, weight, out);
    }

    fn rms_norm(&self, x: &Buffer, rows: Rows<'_>, weight: &[f32], eps: f32, out: &mut Buffer) {
        self.cpu.rms_norm(x, rows, weight, eps, out);
    }

    fn add_rms_norm(&self, x: &mut Buffer, residual: &Buffer, rows: usize, weight: &[f32], eps: f32) {
        self.cpu.add_rms_norm(x, residual, rows, weight, eps);
    }

    fn add_norm_norm(
        &self,
        x: &mut Buffer,
        residual: &Buffer,
        rows: usize,
        weights: NormWeights<'_>,
        out: &mut Buffer,
    ) {
        self.cpu.add_norm_norm(x, residual, rows, weights, out);
    }

    fn gated(&self, x: &Buffer, rows: usize, weight: &Matrix, out: &mut Buffer) {
        self.cpu.gated(x, rows, weight, out);
    }

    fn rotate_and_store(
        &self,
        qkv: &mut Buffer,
        rotation: Rotation<'_, Buffer>,
        rows: KvRows<'_>,
        stopped: Option<Stopped<'_, Buffer>>,
        layer: usize,
        cache: &mut KvCache,
    ) {
        self.cpu.rotate_and_store(qkv, rotation, rows, stopped, layer, cache);
    }

    fn attention(&self, qkv: &Buffer, rows: KvRows<'_>, layer: usize, cache: &KvCache, out: &mut Buffer) {
        self.cpu.attention(qkv, rows, layer, cache, out);
    }

    fn add_norm_commit(
        &self,
        x: &mut Buffer,
        residual: &Buffer,
        norm: Norm<'_>,
        commit: Commit<'_, Buffer>,
        changes: &mut Vec<LatentChange>,
    ) {
        self.cpu.add_norm_commit(x, residual, norm, commit, changes);
    }
}
