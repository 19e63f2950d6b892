//! Those who compete, each used as its documentation says it is fastest.
//!
//! A contestant with several ways (weights by output or by input, `sgemm` or `sgemv`, two primitives) has them all
//! tried beforehand; the fastest is the one that is measured.

use std::num::NonZeroUsize;
use std::rc::Rc;

use candle_core::{DType, Device, Tensor};
use faer::{Accum, MatMut, MatRef, Par};
use half::bf16;
use windlass_kernels::{Backend, Cpu, CpuConfig, Rows, Weight, WeightFormat};

use crate::ffi::{Blas, Dnnl, DnnlProduct, Layout, Mkl, MklPacked, Primitive, gemm};
use crate::problem::{Kind, Problem, to_bf16};

/// One library on one [`Problem`].
pub trait Contestant {
    fn name(&self) -> &'static str;
    /// How many ways it has of doing the product.
    fn ways(&self) -> usize {
        1
    }
    /// Everything that is done once: packing included. Returns a description, or why the way does not exist.
    fn prepare(&mut self, rows: usize, way: usize) -> Result<String, String>;
    /// One product with the given copy of the weight.
    fn run(&mut self, copy: usize);
    /// Result of the last product, `[rows, outputs]`.
    fn output(&self) -> Vec<f32>;
    /// Largest relative error to expect of a sum.
    fn tolerance(&self) -> f64 {
        1e-5
    }
}

/// All that can compete on `problem`, and why others cannot. Windlass is the first.
pub fn contestants(problem: &Rc<Problem>, only: &[String]) -> (Vec<Box<dyn Contestant>>, Vec<String>) {
    let mut present: Vec<Box<dyn Contestant>> = Vec::new();
    let mut absent = Vec::new();
    let mut add = |name: &str, contestant: &dyn Fn() -> Result<Box<dyn Contestant>, String>| {
        if only.is_empty() || only.iter().any(|only| only == name) {
            match contestant() {
                Ok(contestant) => present.push(contestant),
                Err(why) => absent.push(format!("{name} ({}): {why}", problem.kind.name())),
            }
        }
    };
    add("windlass", &|| Ok(Box::new(Windlass::new(problem)?)));
    add("onednn", &|| Ok(Box::new(OneDnn::new(problem)?)));
    add("mkl", &|| Ok(Box::new(MklProduct::new(problem)?)));
    add("openblas", &|| Ok(Box::new(OpenBlas::new(problem)?)));
    add("faer", &|| Ok(Box::new(Faer::new(problem)?)));
    add("gemm", &|| Ok(Box::new(Gemm::new(problem)?)));
    add("candle", &|| Ok(Box::new(Candle::new(problem)?)));
    (present, absent)
}

fn f32_only(problem: &Problem) -> Result<(), String> {
    if problem.kind == Kind::F32 { Ok(()) } else { Err("has no product of this type".to_owned()) }
}

/// Plain copies of the weight, made when first wanted.
struct Plain {
    problem: Rc<Problem>,
    by_output: Vec<Vec<f32>>,
    by_input: Vec<Vec<f32>>,
}

impl Plain {
    fn new(problem: &Rc<Problem>) -> Self {
        Self { problem: problem.clone(), by_output: Vec::new(), by_input: Vec::new() }
    }

    fn make(&mut self, layout: Layout) {
        let copies = self.problem.copies;
        match layout {
            Layout::ByOutput if self.by_output.is_empty() => {
                self.by_output = vec![self.problem.weight.clone(); copies];
            }
            Layout::ByInput if self.by_input.is_empty() => {
                self.by_input = vec![self.problem.transposed(); copies]
            }
            _ => {}
        }
    }

    fn get(&self, layout: Layout, copy: usize) -> &[f32] {
        match layout {
            Layout::ByOutput => &self.by_output[copy],
            Layout::ByInput => &self.by_input[copy],
        }
    }
}

fn layout(way: usize) -> Layout {
    if way % 2 == 0 { Layout::ByOutput } else { Layout::ByInput }
}

fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::ByOutput => "weights [N, K]",
        Layout::ByInput => "weights [K, N]",
    }
}

// -------------------------------------------------------------------------------------------------------------- Windlass

struct Windlass {
    problem: Rc<Problem>,
    backend: Cpu,
    weights: Vec<<Cpu as Backend>::Matrix>,
    x: <Cpu as Backend>::Buffer,
    out: <Cpu as Backend>::Buffer,
    rows: usize,
}

impl Windlass {
    fn new(problem: &Rc<Problem>) -> Result<Self, String> {
        let weights = match problem.kind {
            Kind::F32 => WeightFormat::F32,
            Kind::Bf16 => WeightFormat::Bf16,
        };
        let backend = Cpu::with(CpuConfig { threads: problem.threads, isa: problem.isa, weights });
        let matrix = |_| backend.matrix(&Weight::of(&problem.weight, problem.inputs));
        let weights = (0..problem.copies).map(matrix).collect();
        let mut x = backend.buffer(problem.most_rows, problem.inputs);
        backend.upload(&problem.x, &mut x, Rows::First(problem.most_rows));
        let out = backend.buffer(problem.most_rows, problem.outputs);
        Ok(Self { problem: problem.clone(), backend, weights, x, out, rows: 0 })
    }
}

impl Contestant for Windlass {
    fn name(&self) -> &'static str {
        "windlass"
    }

    fn prepare(&mut self, rows: usize, _way: usize) -> Result<String, String> {
        self.rows = rows;
        Ok(format!(
            "packed {} weights, f32 activations, {:?}, {}",
            self.problem.kind.name(),
            self.problem.isa,
            self.backend.arithmetic()
        ))
    }

    fn run(&mut self, copy: usize) {
        self.backend.matmul(&self.x, self.rows, &self.weights[copy], &mut self.out);
    }

    fn output(&self) -> Vec<f32> {
        let mut out = Vec::new();
        self.backend.download(&self.out, self.rows, &mut out);
        out
    }
}

// ---------------------------------------------------------------------------------------------------------------- oneDNN

struct OneDnn {
    problem: Rc<Problem>,
    dnnl: &'static Dnnl,
    product: Option<DnnlProduct>,
}

impl OneDnn {
    fn new(problem: &Rc<Problem>) -> Result<Self, String> {
        Ok(Self { problem: problem.clone(), dnnl: Box::leak(Box::new(Dnnl::open()?)), product: None })
    }
}

impl Contestant for OneDnn {
    fn name(&self) -> &'static str {
        "onednn"
    }

    fn ways(&self) -> usize {
        2
    }

    fn prepare(&mut self, rows: usize, way: usize) -> Result<String, String> {
        let primitive = [Primitive::Matmul, Primitive::InnerProduct][way];
        let shape = [rows, self.problem.outputs, self.problem.inputs];
        self.product = None;
        let copies = self.problem.copies;
        let product = match self.problem.kind {
            Kind::F32 => {
                let weights = vec![&self.problem.weight[..]; copies];
                self.dnnl.product_f32(primitive, &self.problem.x, &weights, shape)?
            }
            Kind::Bf16 => {
                let weight = to_bf16(&self.problem.weight);
                let weights = vec![&weight[..]; copies];
                self.dnnl.product_bf16(primitive, &to_bf16(&self.problem.x), &weights, shape)?
            }
        };
        let detail = format!("{} packed, {primitive:?}, {}", self.dnnl.version, product.implementation);
        self.product = Some(product);
        Ok(detail)
    }

    fn run(&mut self, copy: usize) {
        self.product.as_ref().expect("prepared").run(copy);
    }

    fn output(&self) -> Vec<f32> {
        self.product.as_ref().expect("prepared").output()
    }
}

// ------------------------------------------------------------------------------------------------------------------- MKL

enum MklWeights {
    Plain(Layout),
    F32(Vec<MklPacked<f32>>),
    Bf16(Vec<MklPacked<bf16>>),
}

struct MklProduct {
    problem: Rc<Problem>,
    mkl: Mkl,
    weights: MklWeights,
    plain: Plain,
    x: Vec<bf16>,
    out: Vec<f32>,
    rows: usize,
}

impl MklProduct {
    fn new(problem: &Rc<Problem>) -> Result<Self, String> {
        let path = std::env::var("MKL_RT").ok();
        let weights = MklWeights::Plain(Layout::ByOutput);
        let (x, out) = (to_bf16(&problem.x), vec![0.0; problem.most_rows * problem.outputs]);
        Ok(Self {
            problem: problem.clone(),
            mkl: Mkl::open(path.as_deref())?,
            weights,
            plain: Plain::new(problem),
            x,
            out,
            rows: 0,
        })
    }

    fn shape(&self) -> [usize; 3] {
        [self.rows, self.problem.outputs, self.problem.inputs]
    }
}

impl Contestant for MklProduct {
    fn name(&self) -> &'static str {
        "mkl"
    }

    fn ways(&self) -> usize {
        if self.problem.kind == Kind::F32 { 3 } else { 1 }
    }

    fn prepare(&mut self, rows: usize, way: usize) -> Result<String, String> {
        self.rows = rows;
        let (shape, copies) = (self.shape(), 0..self.problem.copies);
        let weight = &self.problem.weight;
        let how = match (self.problem.kind, way) {
            (Kind::F32, 0) => {
                self.weights = MklWeights::F32(copies.map(|_| self.mkl.pack_f32(weight, shape)).collect());
                "sgemm_compute, packed"
            }
            (Kind::F32, _) => {
                let layout = layout(way);
                self.plain.make(layout);
                self.weights = MklWeights::Plain(layout);
                if layout == Layout::ByOutput { "sgemm, weights [N, K]" } else { "sgemm, weights [K, N]" }
            }
            (Kind::Bf16, _) => {
                let weight = to_bf16(weight);
                self.weights = MklWeights::Bf16(copies.map(|_| self.mkl.pack_bf16(&weight, shape)).collect());
                "gemm_bf16bf16f32_compute, packed"
            }
        };
        Ok(format!("{}; {how}", self.mkl.blas.version))
    }

    fn run(&mut self, copy: usize) {
        let (shape, x) = (self.shape(), &self.problem.x);
        match &self.weights {
            MklWeights::Plain(layout) => {
                let weight = (self.plain.get(*layout, copy), *layout);
                self.mkl.blas.product(x, weight, &mut self.out, shape);
            }
            MklWeights::F32(weights) => self.mkl.product_f32(x, &weights[copy], &mut self.out, shape),
            MklWeights::Bf16(weights) => self.mkl.product_bf16(&self.x, &weights[copy], &mut self.out, shape),
        }
    }

    fn output(&self) -> Vec<f32> {
        self.out[..self.rows * self.problem.outputs].to_vec()
    }
}

// -------------------------------------------------------------------------------------------------------------- OpenBLAS

struct OpenBlas {
    problem: Rc<Problem>,
    blas: Blas,
    plain: Plain,
    out: Vec<f32>,
    rows: usize,
    way: usize,
}

impl OpenBlas {
    fn new(problem: &Rc<Problem>) -> Result<Self, String> {
        f32_only(problem)?;
        let out = vec![0.0; problem.most_rows * problem.outputs];
        Ok(Self {
            problem: problem.clone(),
            blas: Blas::openblas()?,
            plain: Plain::new(problem),
            out,
            rows: 0,
            way: 0,
        })
    }
}

impl Contestant for OpenBlas {
    fn name(&self) -> &'static str {
        "openblas"
    }

    fn ways(&self) -> usize {
        4
    }

    fn prepare(&mut self, rows: usize, way: usize) -> Result<String, String> {
        if way >= 2 && rows > 1 {
            return Err("sgemv takes one row".to_owned());
        }
        (self.rows, self.way) = (rows, way);
        self.plain.make(layout(way));
        let function = if way >= 2 { "sgemv" } else { "sgemm" };
        Ok(format!("{}, {function}, {}", self.blas.version, layout_name(layout(way))))
    }

    fn run(&mut self, copy: usize) {
        let shape = [self.rows, self.problem.outputs, self.problem.inputs];
        let weight = (self.plain.get(layout(self.way), copy), layout(self.way));
        if self.way >= 2 {
            self.blas.one_row(&self.problem.x, weight, &mut self.out, shape);
        } else {
            self.blas.product(&self.problem.x, weight, &mut self.out, shape);
        }
    }

    fn output(&self) -> Vec<f32> {
        self.out[..self.rows * self.problem.outputs].to_vec()
    }
}

// ------------------------------------------------------------------------------------------------------------------ faer

struct Faer {
    problem: Rc<Problem>,
    plain: Plain,
    out: Vec<f32>,
    rows: usize,
    layout: Layout,
}

impl Faer {
    fn new(problem: &Rc<Problem>) -> Result<Self, String> {
        f32_only(problem)?;
        let out = vec![0.0; problem.most_rows * problem.outputs];
        Ok(Self {
            problem: problem.clone(),
            plain: Plain::new(problem),
            out,
            rows: 0,
            layout: Layout::ByOutput,
        })
    }
}

impl Contestant for Faer {
    fn name(&self) -> &'static str {
        "faer"
    }

    fn ways(&self) -> usize {
        2
    }

    fn prepare(&mut self, rows: usize, way: usize) -> Result<String, String> {
        (self.rows, self.layout) = (rows, layout(way));
        self.plain.make(self.layout);
        Ok(layout_name(self.layout).to_owned())
    }

    fn run(&mut self, copy: usize) {
        let Problem { outputs, inputs, threads, .. } = *self.problem;
        let x = MatRef::from_row_major_slice(&self.problem.x[..self.rows * inputs], self.rows, inputs);
        let weight = self.plain.get(self.layout, copy);
        let weight = match self.layout {
            Layout::ByOutput => MatRef::from_column_major_slice(weight, inputs, outputs),
            Layout::ByInput => MatRef::from_row_major_slice(weight, inputs, outputs),
        };
        let out = MatMut::from_row_major_slice_mut(&mut self.out[..self.rows * outputs], self.rows, outputs);
        let parallel = match NonZeroUsize::new(threads) {
            Some(threads) if threads.get() > 1 => Par::Rayon(threads),
            _ => Par::Seq,
        };
        faer::linalg::matmul::matmul(out, Accum::Replace, x, weight, 1.0, parallel);
    }

    fn output(&self) -> Vec<f32> {
        self.out[..self.rows * self.problem.outputs].to_vec()
    }
}

// ------------------------------------------------------------------------------------------------------------------ gemm

struct Gemm {
    problem: Rc<Problem>,
    plain: Plain,
    out: Vec<f32>,
    rows: usize,
    layout: Layout,
}

impl Gemm {
    fn new(problem: &Rc<Problem>) -> Result<Self, String> {
        f32_only(problem)?;
        let out = vec![0.0; problem.most_rows * problem.outputs];
        Ok(Self {
            problem: problem.clone(),
            plain: Plain::new(problem),
            out,
            rows: 0,
            layout: Layout::ByOutput,
        })
    }
}

impl Contestant for Gemm {
    fn name(&self) -> &'static str {
        "gemm"
    }

    fn ways(&self) -> usize {
        2
    }

    fn prepare(&mut self, rows: usize, way: usize) -> Result<String, String> {
        (self.rows, self.layout) = (rows, layout(way));
        self.plain.make(self.layout);
        Ok(layout_name(self.layout).to_owned())
    }

    fn run(&mut self, copy: usize) {
        let Problem { outputs, inputs, threads, .. } = *self.problem;
        let weight = (self.plain.get(self.layout, copy), self.layout);
        gemm(&self.problem.x, weight, &mut self.out, [self.rows, outputs, inputs], threads);
    }

    fn output(&self) -> Vec<f32> {
        self.out[..self.rows * self.problem.outputs].to_vec()
    }
}

// ---------------------------------------------------------------------------------------------------------------- candle

struct Candle {
    problem: Rc<Problem>,
    weights: Vec<Tensor>,
    x: Tensor,
    out: Option<Tensor>,
}

impl Candle {
    fn new(problem: &Rc<Problem>) -> Result<Self, String> {
        let x = tensor(problem, &problem.x, [problem.most_rows, problem.inputs])?;
        Ok(Self { problem: problem.clone(), weights: Vec::new(), x, out: None })
    }
}

fn tensor(problem: &Problem, values: &[f32], shape: [usize; 2]) -> Result<Tensor, String> {
    let kind = if problem.kind == Kind::F32 { DType::F32 } else { DType::BF16 };
    let tensor =
        Tensor::from_slice(values, (shape[0], shape[1]), &Device::Cpu).and_then(|t| t.to_dtype(kind));
    tensor.map_err(|error| error.to_string())
}

impl Contestant for Candle {
    fn name(&self) -> &'static str {
        "candle"
    }

    fn ways(&self) -> usize {
        2
    }

    fn prepare(&mut self, rows: usize, way: usize) -> Result<String, String> {
        let Problem { outputs, inputs, copies, .. } = *self.problem;
        self.x = tensor(&self.problem, &self.problem.x[..rows * inputs], [rows, inputs])?;
        let copy = |_| match layout(way) {
            Layout::ByOutput => {
                let weight = tensor(&self.problem, &self.problem.weight, [outputs, inputs])?;
                weight.t().map_err(|error| error.to_string())
            }
            Layout::ByInput => tensor(&self.problem, &self.problem.transposed(), [inputs, outputs]),
        };
        self.weights = Vec::new();
        self.weights = (0..copies).map(copy).collect::<Result<_, _>>()?;
        Ok(format!("Tensor::matmul, {}", layout_name(layout(way))))
    }

    fn run(&mut self, copy: usize) {
        self.out = Some(self.x.matmul(&self.weights[copy]).expect("shapes fit"));
    }

    fn output(&self) -> Vec<f32> {
        let out = self.out.as_ref().expect("run").to_dtype(DType::F32);
        out.and_then(|out| out.flatten_all()?.to_vec1()).expect("a tensor of f32")
    }

    fn tolerance(&self) -> f64 {
        // Its bf16 product rounds the result.
        if self.problem.kind == Kind::Bf16 { 1e-2 } else { 1e-5 }
    }
}
