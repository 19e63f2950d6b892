//! oneDNN, OpenBLAS and MKL, loaded at run time: a library that is not there is left out of the comparison.
//!
//! All `unsafe` of this package but that of the ceilings, the call of the crate `gemm` and of one clock included. Wrappers check sizes before they
//! hand out pointers.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::time::Duration;

use half::bf16;
use libloading::Library;

type Result<T> = std::result::Result<T, String>;

fn open(name: &str) -> Result<&'static Library> {
    // SAFETY: these libraries' initialisers have no preconditions.
    let library = unsafe { Library::new(name) }.map_err(|error| error.to_string())?;
    // Never unloaded: their threads live as long as the process.
    Ok(Box::leak(Box::new(library)))
}

fn symbol<T: Copy>(library: &Library, name: &str) -> Result<T> {
    // SAFETY: every caller's `T` is the function's type in the library's C header.
    let symbol = unsafe { library.get::<T>(name.as_bytes()) };
    symbol.map(|symbol| *symbol).map_err(|error| error.to_string())
}

// ---------------------------------------------------------------------------------------------------------------- oneDNN

/// A descriptor that only oneDNN looks into; the largest of those used has 5584 bytes.
#[repr(C, align(16))]
struct Blob([u8; 8192]);

impl Blob {
    fn new() -> Box<Self> {
        Box::new(Self([0; 8192]))
    }
}

#[repr(C)]
struct Argument {
    kind: c_int,
    memory: Handle,
}

type Handle = *mut c_void;
type Status = c_int;

// Values of oneAPI/dnnl/dnnl_types.h, version 2.
const CPU: c_int = 1;
const F32: c_int = 3;
const BF16: c_int = 2;
const TAG_ANY: c_int = 1;
const TAG_AB: c_int = 3;
const TAG_BA: c_int = 22;
const FORWARD_INFERENCE: c_int = 96;
const QUERY_IMPLEMENTATION: c_int = 8;
const QUERY_WEIGHTS: c_int = 131;
const SRC: c_int = 1;
const WEIGHTS: c_int = 33;
const DST: c_int = 17;
/// `DNNL_MEMORY_ALLOCATE`: the library owns the memory.
const ALLOCATE: *mut c_void = usize::MAX as *mut c_void;

/// Which oneDNN primitive computes the product.
#[derive(Debug, Clone, Copy)]
pub enum Primitive {
    Matmul,
    InnerProduct,
}

/// oneDNN 2 on the CPU.
pub struct Dnnl {
    engine: Handle,
    stream: Handle,
    pub version: String,
    tag: unsafe extern "C" fn(*mut Blob, c_int, *const i64, c_int, c_int) -> Status,
    matmul: unsafe extern "C" fn(*mut Blob, *const Blob, *const Blob, *const Blob, *const Blob) -> Status,
    inner_product:
        unsafe extern "C" fn(*mut Blob, c_int, *const Blob, *const Blob, *const Blob, *const Blob) -> Status,
    describe: unsafe extern "C" fn(*mut Handle, *const Blob, *const c_void, Handle, *const c_void) -> Status,
    describe_reorder:
        unsafe extern "C" fn(*mut Handle, *const Blob, Handle, *const Blob, Handle, *const c_void) -> Status,
    query: unsafe extern "C" fn(*const c_void, c_int, c_int, *mut c_void) -> Status,
    query_memory: unsafe extern "C" fn(*const c_void, c_int, c_int) -> *const Blob,
    create: unsafe extern "C" fn(*mut Handle, *const c_void) -> Status,
    execute: unsafe extern "C" fn(*const c_void, Handle, c_int, *const Argument) -> Status,
    wait: unsafe extern "C" fn(Handle) -> Status,
    memory: unsafe extern "C" fn(*mut Handle, *const Blob, Handle, *mut c_void) -> Status,
    memory_data: unsafe extern "C" fn(*const c_void, *mut *mut c_void) -> Status,
    free_memory: unsafe extern "C" fn(Handle) -> Status,
    free_primitive: unsafe extern "C" fn(Handle) -> Status,
    free_description: unsafe extern "C" fn(Handle) -> Status,
}

/// A product with its weights in the layout oneDNN chose for it, one packed copy per weight.
pub struct DnnlProduct {
    dnnl: &'static Dnnl,
    primitive: Handle,
    /// What oneDNN calls its implementation, for instance `brgemm:avx512_core`.
    pub implementation: String,
    src: Handle,
    weights: Vec<Handle>,
    dst: Handle,
    outputs: usize,
    rows: usize,
}

#[repr(C)]
struct Version {
    major: c_int,
    minor: c_int,
    patch: c_int,
}

impl Dnnl {
    /// Opens `libdnnl.so.2`.
    pub fn open() -> Result<Self> {
        let library = open("libdnnl.so.2")?;
        let create_engine: unsafe extern "C" fn(*mut Handle, c_int, usize) -> Status =
            symbol(library, "dnnl_engine_create")?;
        let create_stream: unsafe extern "C" fn(*mut Handle, Handle, u32) -> Status =
            symbol(library, "dnnl_stream_create")?;
        let version: unsafe extern "C" fn() -> *const Version = symbol(library, "dnnl_version")?;
        let (mut engine, mut stream) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: both handles are written by the calls, in this order; the version lives in the library.
        let version = unsafe {
            check("engine", create_engine(&mut engine, CPU, 0))?;
            check("stream", create_stream(&mut stream, engine, 1))?;
            let Version { major, minor, patch } = &*version();
            format!("{major}.{minor}.{patch}")
        };
        Ok(Self {
            engine,
            stream,
            version,
            tag: symbol(library, "dnnl_memory_desc_init_by_tag")?,
            matmul: symbol(library, "dnnl_matmul_desc_init")?,
            inner_product: symbol(library, "dnnl_inner_product_forward_desc_init")?,
            describe: symbol(library, "dnnl_primitive_desc_create")?,
            describe_reorder: symbol(library, "dnnl_reorder_primitive_desc_create")?,
            query: symbol(library, "dnnl_primitive_desc_query")?,
            query_memory: symbol(library, "dnnl_primitive_desc_query_md")?,
            create: symbol(library, "dnnl_primitive_create")?,
            execute: symbol(library, "dnnl_primitive_execute")?,
            wait: symbol(library, "dnnl_stream_wait")?,
            memory: symbol(library, "dnnl_memory_create")?,
            memory_data: symbol(library, "dnnl_memory_get_data_handle")?,
            free_memory: symbol(library, "dnnl_memory_destroy")?,
            free_primitive: symbol(library, "dnnl_primitive_destroy")?,
            free_description: symbol(library, "dnnl_primitive_desc_destroy")?,
        })
    }

    /// `out[rows, outputs] = x · weightᵀ` in f32; each of `weights` is `[outputs, inputs]`, row-major.
    pub fn product_f32(
        &'static self,
        primitive: Primitive,
        x: &[f32],
        weights: &[&[f32]],
        shape: [usize; 3],
    ) -> Result<DnnlProduct> {
        self.product(primitive, F32, x, weights, shape)
    }

    /// The same with `x` and weights in bf16 and the output in f32.
    pub fn product_bf16(
        &'static self,
        primitive: Primitive,
        x: &[bf16],
        weights: &[&[bf16]],
        shape: [usize; 3],
    ) -> Result<DnnlProduct> {
        self.product(primitive, BF16, x, weights, shape)
    }

    fn product<T: Copy>(
        &'static self,
        primitive: Primitive,
        kind: c_int,
        x: &[T],
        weights: &[&[T]],
        [rows, outputs, inputs]: [usize; 3],
    ) -> Result<DnnlProduct> {
        assert!(x.len() >= rows * inputs, "x is smaller than [{rows}, {inputs}]");
        assert!(weights.iter().all(|w| w.len() == outputs * inputs), "a weight is not [{outputs}, {inputs}]");
        // `inner_product` takes [outputs, inputs], `matmul` [inputs, outputs]: the same memory, read as columns.
        let (weight_shape, plain_tag) = match primitive {
            Primitive::InnerProduct => ([outputs, inputs], TAG_AB),
            Primitive::Matmul => ([inputs, outputs], TAG_BA),
        };
        let src = self.descriptor([rows, inputs], kind, TAG_AB)?;
        let any = self.descriptor(weight_shape, kind, TAG_ANY)?;
        let plain = self.descriptor(weight_shape, kind, plain_tag)?;
        let dst = self.descriptor([rows, outputs], F32, TAG_AB)?;
        let mut operation = Blob::new();
        let mut description = ptr::null_mut();
        // SAFETY: descriptors were initialised above and outlive the calls; a null bias means none; the blob is larger
        // than either operation descriptor.
        unsafe {
            let status = match primitive {
                Primitive::Matmul => (self.matmul)(&mut *operation, &*src, &*any, ptr::null(), &*dst),
                Primitive::InnerProduct => {
                    (self.inner_product)(&mut *operation, FORWARD_INFERENCE, &*src, &*any, ptr::null(), &*dst)
                }
            };
            check("operation", status)?;
            check(
                "primitive descriptor",
                (self.describe)(&mut description, &*operation, ptr::null(), self.engine, ptr::null()),
            )?;
        }
        let mut name: *const c_char = ptr::null();
        let mut handle = ptr::null_mut();
        // SAFETY: the description is valid; the queried name and weight descriptor live inside it until it is freed, after
        // their last use below.
        unsafe {
            check(
                "implementation",
                (self.query)(description, QUERY_IMPLEMENTATION, 0, (&raw mut name).cast()),
            )?;
            check("primitive", (self.create)(&mut handle, description))?;
            let packed = (self.query_memory)(description, QUERY_WEIGHTS, 0);
            let product = DnnlProduct {
                dnnl: self,
                primitive: handle,
                implementation: CStr::from_ptr(name).to_string_lossy().into_owned(),
                src: self.allocate(&*src)?,
                weights: weights.iter().map(|w| self.pack(w, &plain, &*packed)).collect::<Result<_>>()?,
                dst: self.allocate(&*dst)?,
                outputs,
                rows,
            };
            (self.free_description)(description);
            let mut data = ptr::null_mut();
            check("source", (self.memory_data)(product.src, &mut data))?;
            // `allocate` made it [rows, inputs] of `T`.
            ptr::copy_nonoverlapping(x.as_ptr(), data.cast(), rows * inputs);
            Ok(product)
        }
    }

    fn descriptor(&self, shape: [usize; 2], kind: c_int, tag: c_int) -> Result<Box<Blob>> {
        let mut blob = Blob::new();
        let shape = shape.map(|size| size as i64);
        // SAFETY: the shape has two dimensions; the blob is larger than a memory descriptor (696 bytes).
        check("memory descriptor", unsafe { (self.tag)(&mut *blob, 2, shape.as_ptr(), kind, tag) })?;
        Ok(blob)
    }

    /// Memory of the library's own for a descriptor.
    fn allocate(&self, descriptor: *const Blob) -> Result<Handle> {
        let mut memory = ptr::null_mut();
        // SAFETY: callers pass an initialised descriptor.
        check("memory", unsafe { (self.memory)(&mut memory, descriptor, self.engine, ALLOCATE) })?;
        Ok(memory)
    }

    /// `weight`, which `plain` describes, reordered into the layout `packed` describes.
    fn pack<T>(&self, weight: &[T], plain: &Blob, packed: *const Blob) -> Result<Handle> {
        let to = self.allocate(packed)?;
        let (mut from, mut description, mut reorder) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: `plain` describes exactly `weight` (checked by the caller), which the reorder only reads and which outlives
        // the wait; all handles are valid between their creation and their release here.
        unsafe {
            let data = weight.as_ptr().cast_mut().cast();
            check("plain weight", (self.memory)(&mut from, plain, self.engine, data))?;
            check(
                "reorder descriptor",
                (self.describe_reorder)(
                    &mut description,
                    plain,
                    self.engine,
                    packed,
                    self.engine,
                    ptr::null(),
                ),
            )?;
            check("reorder", (self.create)(&mut reorder, description))?;
            let arguments = [Argument { kind: SRC, memory: from }, Argument { kind: DST, memory: to }];
            check("reorder", (self.execute)(reorder, self.stream, 2, arguments.as_ptr()))?;
            check("reorder", (self.wait)(self.stream))?;
            (self.free_primitive)(reorder);
            (self.free_description)(description);
            (self.free_memory)(from);
        }
        Ok(to)
    }
}

impl DnnlProduct {
    pub fn run(&self, copy: usize) {
        let arguments = [
            Argument { kind: SRC, memory: self.src },
            Argument { kind: WEIGHTS, memory: self.weights[copy] },
            Argument { kind: DST, memory: self.dst },
        ];
        // SAFETY: the three memories were made from this primitive's own descriptors.
        let status = unsafe {
            let status = (self.dnnl.execute)(self.primitive, self.dnnl.stream, 3, arguments.as_ptr());
            status | (self.dnnl.wait)(self.dnnl.stream)
        };
        assert_eq!(status, 0, "oneDNN failed");
    }

    pub fn output(&self) -> Vec<f32> {
        let mut data = ptr::null_mut();
        // SAFETY: the destination is [rows, outputs] of f32, row-major, and no primitive is running.
        unsafe {
            assert_eq!((self.dnnl.memory_data)(self.dst, &mut data), 0);
            std::slice::from_raw_parts(data.cast::<f32>(), self.rows * self.outputs).to_vec()
        }
    }
}

impl Drop for DnnlProduct {
    fn drop(&mut self) {
        // SAFETY: handles this value owns, each released once, with nothing running.
        unsafe {
            (self.dnnl.free_primitive)(self.primitive);
            for memory in self.weights.iter().chain([&self.src, &self.dst]) {
                (self.dnnl.free_memory)(*memory);
            }
        }
    }
}

fn check(what: &str, status: Status) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(format!("oneDNN: {what}: status {status}")) }
}

// ------------------------------------------------------------------------------------------------------------------ BLAS

const ROW_MAJOR: c_int = 101;
const NO_TRANSPOSE: c_int = 111;
const TRANSPOSE: c_int = 112;

type Sgemm = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const f32,
    c_int,
    *const f32,
    c_int,
    f32,
    *mut f32,
    c_int,
);
type Sgemv = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const f32,
    c_int,
    *const f32,
    c_int,
    f32,
    *mut f32,
    c_int,
);

/// How a weight stands in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Layout {
    /// `[outputs, inputs]`, row-major.
    ByOutput,
    /// `[inputs, outputs]`, row-major.
    ByInput,
}

/// OpenBLAS or MKL through the C interface of BLAS.
pub struct Blas {
    sgemm: Sgemm,
    sgemv: Sgemv,
    pub version: String,
}

impl Blas {
    /// Opens `libopenblas.so.0`.
    pub fn openblas() -> Result<Self> {
        let library = open("libopenblas.so.0")?;
        let config: unsafe extern "C" fn() -> *const c_char = symbol(library, "openblas_get_config")?;
        // SAFETY: the function takes nothing and returns a string that lives in the library.
        let version = unsafe { CStr::from_ptr(config()) }.to_string_lossy().into_owned();
        Self::of(library, version)
    }

    fn of(library: &'static Library, version: String) -> Result<Self> {
        Ok(Self { sgemm: symbol(library, "cblas_sgemm")?, sgemv: symbol(library, "cblas_sgemv")?, version })
    }

    /// `out = x · weightᵀ` by `sgemm`.
    pub fn product(&self, x: &[f32], weight: (&[f32], Layout), out: &mut [f32], shape: [usize; 3]) {
        let [rows, outputs, inputs] = check_sizes(x.len(), weight.0.len(), out.len(), shape);
        let (transpose, stride) = match weight.1 {
            Layout::ByOutput => (TRANSPOSE, inputs),
            Layout::ByInput => (NO_TRANSPOSE, outputs),
        };
        let (x, weight, out) = (x.as_ptr(), weight.0.as_ptr(), out.as_mut_ptr());
        // SAFETY: sizes were checked; row strides are those of the layouts.
        unsafe {
            (self.sgemm)(
                ROW_MAJOR,
                NO_TRANSPOSE,
                transpose,
                rows,
                outputs,
                inputs,
                1.0,
                x,
                inputs,
                weight,
                stride,
                0.0,
                out,
                outputs,
            );
        }
    }

    /// One row of it by `sgemv`.
    pub fn one_row(&self, x: &[f32], weight: (&[f32], Layout), out: &mut [f32], shape: [usize; 3]) {
        let [rows, outputs, inputs] = check_sizes(x.len(), weight.0.len(), out.len(), shape);
        assert_eq!(rows, 1, "sgemv takes one row");
        let (transpose, height, width) = match weight.1 {
            Layout::ByOutput => (NO_TRANSPOSE, outputs, inputs),
            Layout::ByInput => (TRANSPOSE, inputs, outputs),
        };
        let (x, weight, out) = (x.as_ptr(), weight.0.as_ptr(), out.as_mut_ptr());
        // SAFETY: as above.
        unsafe { (self.sgemv)(ROW_MAJOR, transpose, height, width, 1.0, weight, width, x, 1, 0.0, out, 1) }
    }
}

fn check_sizes(x: usize, weight: usize, out: usize, [rows, outputs, inputs]: [usize; 3]) -> [c_int; 3] {
    assert!(x >= rows * inputs && weight == outputs * inputs && out >= rows * outputs, "sizes do not fit");
    [rows, outputs, inputs].map(|size| size as c_int)
}

// ------------------------------------------------------------------------------------------------------------------- MKL

const B_MATRIX: c_int = 162;
const PACKED: c_int = 151;

type PackSize = unsafe extern "C" fn(c_int, c_int, c_int, c_int) -> usize;
type PackF32 =
    unsafe extern "C" fn(c_int, c_int, c_int, c_int, c_int, c_int, f32, *const f32, c_int, *mut f32);
type PackBf16 = unsafe extern "C" fn(c_int, c_int, c_int, c_int, c_int, c_int, *const bf16, c_int, *mut bf16);
type ComputeF32 = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    *const f32,
    c_int,
    *const f32,
    c_int,
    f32,
    *mut f32,
    c_int,
);
type ComputeBf16 = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const bf16,
    c_int,
    *const bf16,
    c_int,
    f32,
    *mut f32,
    c_int,
);

/// MKL with weights packed by its own functions, and its plain BLAS.
pub struct Mkl {
    pub blas: Blas,
    size_f32: PackSize,
    pack_f32: PackF32,
    compute_f32: ComputeF32,
    size_bf16: PackSize,
    pack_bf16: PackBf16,
    compute_bf16: ComputeBf16,
}

/// A weight in MKL's own layout for one number of rows.
pub struct MklPacked<T> {
    /// 64 bytes more than needed, so that it can begin on a cache line.
    data: Vec<T>,
    offset: usize,
}

impl<T: Copy> MklPacked<T> {
    fn new(bytes: usize, zero: T) -> Self {
        let data = vec![zero; (bytes + 64).div_ceil(size_of::<T>())];
        let offset = data.as_ptr().align_offset(64);
        Self { data, offset }
    }

    fn as_mut_ptr(&mut self) -> *mut T {
        self.data[self.offset..].as_mut_ptr()
    }

    fn as_ptr(&self) -> *const T {
        self.data[self.offset..].as_ptr()
    }
}

impl Mkl {
    /// Opens `libmkl_rt` at `path`, or wherever the loader finds it.
    pub fn open(path: Option<&str>) -> Result<Self> {
        let library = match path {
            Some(path) => open(path)?,
            None => ["libmkl_rt.so.3", "libmkl_rt.so.2", "libmkl_rt.so"]
                .into_iter()
                .find_map(|name| open(name).ok())
                .ok_or("no libmkl_rt.so; MKL_RT=PATH says where it is")?,
        };
        let version: unsafe extern "C" fn(*mut c_char, c_int) = symbol(library, "mkl_get_version_string")?;
        let mut text = [0_u8; 256];
        // SAFETY: the function writes at most 255 bytes into the buffer.
        unsafe { version(text.as_mut_ptr().cast(), 255) };
        let version = String::from_utf8_lossy(&text).trim_end_matches(['\0', ' ']).to_owned();
        Ok(Self {
            blas: Blas::of(library, version)?,
            size_f32: symbol(library, "cblas_sgemm_pack_get_size")?,
            pack_f32: symbol(library, "cblas_sgemm_pack")?,
            compute_f32: symbol(library, "cblas_sgemm_compute")?,
            size_bf16: symbol(library, "cblas_gemm_bf16bf16f32_pack_get_size")?,
            pack_bf16: symbol(library, "cblas_gemm_bf16bf16f32_pack")?,
            compute_bf16: symbol(library, "cblas_gemm_bf16bf16f32_compute")?,
        })
    }

    pub fn pack_f32(&self, weight: &[f32], shape: [usize; 3]) -> MklPacked<f32> {
        let [rows, outputs, inputs] = check_sizes(usize::MAX, weight.len(), usize::MAX, shape);
        // SAFETY: the size comes from the library for the same shape; the weight's size was checked.
        unsafe {
            let mut packed = MklPacked::new((self.size_f32)(B_MATRIX, rows, outputs, inputs), 0.0);
            let to = packed.as_mut_ptr();
            let from = weight.as_ptr();
            (self.pack_f32)(ROW_MAJOR, B_MATRIX, TRANSPOSE, rows, outputs, inputs, 1.0, from, inputs, to);
            packed
        }
    }

    pub fn product_f32(&self, x: &[f32], weight: &MklPacked<f32>, out: &mut [f32], shape: [usize; 3]) {
        let [rows, outputs, inputs] = check_sizes(x.len(), shape[1] * shape[2], out.len(), shape);
        let (x, weight, out) = (x.as_ptr(), weight.as_ptr(), out.as_mut_ptr());
        // SAFETY: sizes were checked; the weight was packed for this shape.
        unsafe {
            (self.compute_f32)(
                ROW_MAJOR,
                NO_TRANSPOSE,
                PACKED,
                rows,
                outputs,
                inputs,
                x,
                inputs,
                weight,
                inputs,
                0.0,
                out,
                outputs,
            );
        }
    }

    pub fn pack_bf16(&self, weight: &[bf16], shape: [usize; 3]) -> MklPacked<bf16> {
        let [rows, outputs, inputs] = check_sizes(usize::MAX, weight.len(), usize::MAX, shape);
        // SAFETY: as for f32.
        unsafe {
            let mut packed = MklPacked::new((self.size_bf16)(B_MATRIX, rows, outputs, inputs), bf16::ZERO);
            let to = packed.as_mut_ptr();
            let from = weight.as_ptr();
            (self.pack_bf16)(ROW_MAJOR, B_MATRIX, TRANSPOSE, rows, outputs, inputs, from, inputs, to);
            packed
        }
    }

    pub fn product_bf16(&self, x: &[bf16], weight: &MklPacked<bf16>, out: &mut [f32], shape: [usize; 3]) {
        let [rows, outputs, inputs] = check_sizes(x.len(), shape[1] * shape[2], out.len(), shape);
        let (x, weight, out) = (x.as_ptr(), weight.as_ptr(), out.as_mut_ptr());
        // SAFETY: as for f32.
        unsafe {
            (self.compute_bf16)(
                ROW_MAJOR,
                NO_TRANSPOSE,
                PACKED,
                rows,
                outputs,
                inputs,
                1.0,
                x,
                inputs,
                weight,
                inputs,
                0.0,
                out,
                outputs,
            );
        }
    }
}

// ------------------------------------------------------------------------------------------------------------------ gemm

/// `out = x · weightᵀ` by the crate `gemm`.
pub fn gemm(x: &[f32], weight: (&[f32], Layout), out: &mut [f32], shape: [usize; 3], threads: usize) {
    check_sizes(x.len(), weight.0.len(), out.len(), shape);
    let [rows, outputs, inputs] = shape;
    let (column, row) = match weight.1 {
        Layout::ByOutput => (inputs as isize, 1),
        Layout::ByInput => (1, outputs as isize),
    };
    let parallelism = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    let (x_row, out_row) = (inputs as isize, outputs as isize);
    let (x, weight, out) = (x.as_ptr(), weight.0.as_ptr(), out.as_mut_ptr());
    // SAFETY: sizes were checked; strides are those of row-major `x` and `out` and of the weight's layout.
    unsafe {
        gemm::gemm(
            rows,
            outputs,
            inputs,
            out,
            1,
            out_row,
            false,
            x,
            1,
            x_row,
            weight,
            column,
            row,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

// ----------------------------------------------------------------------------------------------------------------- clock

/// CPU time of all threads of this process.
pub fn process_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that outlives the call.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "no clock of process time");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
