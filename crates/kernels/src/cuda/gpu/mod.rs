//! A GPU, through the NVIDIA driver: its context, a stream, the compiled kernels.
//!
//! The driver's library is looked for when a GPU is opened, never before: a program with this in it starts without one.
#![expect(unsafe_code, reason = "calls of the driver")]

mod compiler;
mod connections;
mod driver;
mod graph;
mod joining;
mod landing;
mod link;
mod mark;
mod nccl;
mod parcel;
mod pinned;
mod ring;
mod survey;

use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, thread};

use cudarc::driver::result::{self, DriverError, ctx, event, module, primary_ctx, stream};
use cudarc::driver::sys::{
    CUcontext, CUdevice, CUevent, CUfunction, CUmodule, CUresult, CUstream, CUstreamCaptureMode,
    cuEventQuery, cuStreamQuery,
};

use super::device::{Device, Kernel, Launch, Memory, Work};
use crate::cuda_error::CudaError;
use crate::gpu_config::GpuConfig;
use crate::group::Loss;
pub use compiler::compile;
use connections::Connections;
pub use driver::prepare;
use driver::{ok, to};
use graph::GpuGraph;
use joining::Joining;
use landing::GpuLanding;
use link::Links;
use mark::GpuMark;
use nccl::Communicator;
pub use nccl::GroupId;
use parcel::GpuParcel;
use pinned::Pinned;
pub use survey::{DeviceInfo, Survey};

/// One GPU.
pub struct Gpu {
    info: DeviceInfo,
    /// Before the context, in which it is freed.
    pinned: Mutex<Pinned>,
    /// By [`Kernel`].
    functions: Vec<CUfunction>,
    context: Arc<Context>,
}

/// What memory needs to be freed.
struct Context {
    device: CUdevice,
    context: CUcontext,
    stream: CUstream,
    module: CUmodule,
    /// To others, as long as none of them is lost.
    connections: Mutex<Connections>,
}

/// Why a stream has not done everything.
enum Unfinished {
    /// A rank is lost that it waited for.
    Lost,
    /// The device failed, or something before.
    Failed(DriverError),
}

// SAFETY: the driver's handles may be used from any thread that has made the context current, which `bind` does first.
unsafe impl Send for Context {}
// SAFETY: as above; the driver locks what its calls share.
unsafe impl Sync for Context {}
// SAFETY: functions belong to the context's module, which lives as long.
unsafe impl Send for Gpu {}
// SAFETY: as above; what several threads could change is locked.
unsafe impl Sync for Gpu {}

impl Gpu {
    /// Opens a GPU and loads the kernels for it, which are compiled if nobody has yet.
    pub fn open(number: usize, config: &GpuConfig) -> Result<Self, CudaError> {
        let info = survey::device(number)?;
        if info.capability < (8, 0) {
            let (major, minor) = info.capability;
            return Err(CudaError::TooOld { device: number, name: info.name, major, minor });
        }
        let device = driver::device(number)?;
        // SAFETY: the device was given by the driver.
        let context = unsafe { primary_ctx::retain(device) }.map_err(to("make a context"))?;
        let (stream, module) = (std::ptr::null_mut(), std::ptr::null_mut());
        let mut context = Context { device, context, stream, module, connections: Mutex::default() };
        context.bind();
        context.stream = stream::create(stream::StreamKind::NonBlocking).map_err(to("make a stream"))?;
        let image = compiler::kernels(&info.architecture(), config.kernel_cache.as_deref())?;
        // SAFETY: the image is a whole one for this architecture: the compiler made it, or it was found by the hash of what
        // made it and has its own hash behind it.
        context.module =
            unsafe { module::load_data(image.as_ptr().cast()) }.map_err(to("load the kernels"))?;
        let function = |kernel: &Kernel| {
            let name = CString::new(kernel.name()).expect("names without zeros");
            // SAFETY: the module was just loaded.
            unsafe { module::get_function(context.module, name) }.map_err(to("find a kernel"))
        };
        let functions = Kernel::ALL.iter().map(function).collect::<Result<_, _>>()?;
        let pinned = Pinned::new().map_err(to("pin memory"))?;
        Ok(Self { info, context: Arc::new(context), functions, pinned: Mutex::new(pinned) })
    }

    /// Makes `gpus` ranks of a group of `ranks`, from `first` on. Waits until all ranks have come, or fails once told of a loss.
    pub fn join(
        gpus: &[&Self],
        id: &GroupId,
        (ranks, first): (usize, usize),
        loss: &Loss,
    ) -> Result<(), CudaError> {
        let contexts: Vec<_> = gpus.iter().map(|gpu| Arc::clone(&gpu.context)).collect();
        let (id, of, joining) = (*id, (ranks, first, gpus.len()), loss.clone());
        let places = Joining::start(move || Communicator::join(&id, of, &joining, |i| contexts[i].bind()));
        for (gpu, place) in gpus.iter().zip(places.wait(loss)?) {
            gpu.context.connections().group = Some(place);
        }
        Ok(())
    }

    /// Links it to devices of other processes, one of the stage before and one of the next, by the ids of both links. Waits until
    /// they and all others of the ring have come, or fails once told of a loss.
    pub fn link(&self, [before, next]: [&GroupId; 2], loss: &Loss) -> Result<(), CudaError> {
        let (ids, context, joining) = ([*before, *next], Arc::clone(&self.context), loss.clone());
        let links = Joining::start(move || Links::open(ids.each_ref(), &joining, || context.bind()));
        self.context.connections().links = Some(links.wait(loss).inspect_err(|_| loss.tell())?);
        Ok(())
    }

    /// What it is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn pinned(&self) -> MutexGuard<'_, Pinned> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the device has done everything, which has then read all that was put for it.
    fn finish(&self, pinned: &mut Pinned) {
        self.context.synchronize();
        pinned.has_read(pinned.put_so_far());
    }

    /// # Safety
    /// As for [`Device::run`].
    unsafe fn launch(&self, launch: &Launch) {
        let mut pointers = [std::ptr::null_mut::<c_void>(); Launch::MOST_ARGUMENTS];
        let arguments = launch.arguments();
        for (pointer, argument) in pointers.iter_mut().zip(arguments) {
            *pointer = std::ptr::from_ref(argument).cast_mut().cast();
        }
        let [x, y, threads] = [launch.grid.x, launch.grid.y, launch.kernel.threads()]
            .map(|count| u32::try_from(count).expect("a grid of 32 bits"));
        let function = self.functions[launch.kernel as usize];
        // SAFETY: the caller vouches for the arguments; each pointer leads to eight bytes, of which the kernel reads as many as
        // its parameter has.
        ok("launch a kernel", unsafe {
            let (stream, pointers) = (self.context.stream, &mut pointers[..arguments.len()]);
            result::launch_kernel(function, (x, y, 1), (threads, 1, 1), 0, stream, pointers)
        });
    }

    /// Bytes of its memory that are free.
    pub fn free_bytes(&self) -> u64 {
        self.context.bind();
        ok("ask for free memory", result::mem_get_info()).0 as u64
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("device", &self.context.device).finish_non_exhaustive()
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // The device leaves those that it is connected to, who shall not wait for it. Pinned memory is freed in its context, and not before
        // the device has read it.
        // SAFETY: the context is retained as long as this lives.
        let _ = unsafe { ctx::set_current(self.context.context) };
        self.context.connections().leave();
        let _ = self.context.finish();
    }
}

impl Context {
    /// Makes this the calling thread's context.
    fn bind(&self) {
        // SAFETY: the context is retained as long as this lives.
        ok("use the context", unsafe { ctx::set_current(self.context) });
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the stream has done everything.
    fn finish(&self) -> Result<(), Unfinished> {
        let stream = self.stream;
        // SAFETY: the stream is this context's.
        self.wait(|| unsafe { stream::synchronize(stream) }, || unsafe { cuStreamQuery(stream) })
    }

    /// Waits until the stream has done everything before this event.
    ///
    /// # Safety
    /// It was recorded on a stream of this context.
    unsafe fn reach(&self, event: CUevent) -> Result<(), Unfinished> {
        // SAFETY: the caller vouches for the event.
        self.wait(|| unsafe { event::synchronize(event) }, || unsafe { cuEventQuery(event) })
    }

    /// Waits by `synchronize`, or where others could be waited for in vain by asking again and again; what waits for a rank that is
    /// lost is ended.
    fn wait(
        &self,
        synchronize: impl FnOnce() -> Result<(), DriverError>,
        query: impl Fn() -> CUresult,
    ) -> Result<(), Unfinished> {
        let mut connections = self.connections();
        if connections.is_alone() {
            return synchronize().map_err(Unfinished::Failed);
        }
        loop {
            match query() {
                CUresult::CUDA_ERROR_NOT_READY if connections.is_lost() => {
                    connections.leave();
                    return Err(Unfinished::Lost);
                }
                CUresult::CUDA_ERROR_NOT_READY => thread::yield_now(),
                result => return result.result().map_err(Unfinished::Failed),
            }
        }
    }

    /// Waits until the stream has done everything.
    ///
    /// # Panics
    /// If it cannot.
    fn synchronize(&self) {
        self.finish().unwrap_or_else(Unfinished::panic);
    }
}

impl Unfinished {
    fn panic(self) {
        match self {
            Self::Lost => panic!("a rank is lost, and with it the group"),
            Self::Failed(error) => ok("finish its work", Err(error)),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Errors here are those of earlier work, which somebody has told of already.
        // SAFETY: nobody has the handles any more. Null ones are of a context that was not made to its end.
        unsafe {
            let _ = ctx::set_current(self.context);
            self.connections().leave();
            if !self.module.is_null() {
                let _ = module::unload(self.module);
            }
            if !self.stream.is_null() {
                let _ = stream::destroy(self.stream);
            }
            let _ = primary_ctx::release(self.device);
        }
    }
}

/// Memory of a GPU.
pub struct GpuMemory {
    context: Arc<Context>,
    address: u64,
    bytes: usize,
}

impl fmt::Debug for GpuMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuMemory").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Memory for GpuMemory {
    fn address(&self) -> u64 {
        self.address
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for GpuMemory {
    fn drop(&mut self) {
        // A panic here would end the process where a broken device has already panicked elsewhere, so errors are left to those
        // who use the device.
        // SAFETY: the context is retained as long as this lives.
        let _ = unsafe { ctx::set_current(self.context.context) };
        let _ = self.context.finish();
        // SAFETY: the address is from `malloc_sync`, nobody else frees it, and the stream was waited for, so no launch still uses
        // it.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

impl Device for Gpu {
    type Memory = GpuMemory;
    type Landing = GpuLanding;
    type Mark = GpuMark;
    type Graph = GpuGraph;
    type Parcel = GpuParcel;

    fn allocate(&self, bytes: usize) -> GpuMemory {
        self.context.bind();
        // The driver gives no memory of no length.
        let bytes = bytes.max(1);
        // SAFETY: what is not initialised yet is set to zero before anybody gets it.
        let address = ok("allocate memory", unsafe { result::malloc_sync(bytes) });
        let memory = GpuMemory { context: Arc::clone(&self.context), address, bytes };
        // SAFETY: the memory has as many bytes.
        ok("clear memory", unsafe { result::memset_d8_async(address, 0, bytes, self.context.stream) });
        memory
    }

    fn upload(&self, from: &[u8], to: &GpuMemory) {
        assert!(from.len() <= to.bytes, "{} bytes to {}", from.len(), to.bytes);
        self.context.bind();
        let mut pinned = self.pinned();
        if from.len() > Pinned::BYTES {
            // SAFETY: the memory has as many bytes, and `from` is borrowed until the stream was waited for.
            ok("copy to the device", unsafe {
                result::memcpy_htod_async(to.address, from, self.context.stream)
            });
            return self.finish(&mut pinned);
        }
        let place = match pinned.put(from) {
            Some(place) => place,
            None => {
                self.finish(&mut pinned);
                pinned.put(from).expect("room for what is shorter, once all is read")
            }
        };
        // SAFETY: the memory has as many bytes, and the place is not written again before the device is known to have read it.
        ok("copy to the device", unsafe {
            result::memcpy_htod_async(to.address, place, self.context.stream)
        });
    }

    fn download(&self, from: &GpuMemory, to: &mut [u8]) {
        assert!(to.len() <= from.bytes, "{} bytes of {}", to.len(), from.bytes);
        self.context.bind();
        // SAFETY: the memory has as many bytes, and `to` is borrowed until the stream was waited for.
        ok("copy from the device", unsafe {
            result::memcpy_dtoh_async(to, from.address, self.context.stream)
        });
        self.finish(&mut self.pinned());
    }

    fn landing(&self, bytes: usize) -> GpuLanding {
        self.context.bind();
        ok("pin memory", GpuLanding::new(&self.context, bytes))
    }

    fn send(&self, from: &GpuMemory, bytes: usize, to: &mut GpuLanding) {
        assert!(bytes <= from.bytes, "{bytes} bytes of {}", from.bytes);
        self.context.bind();
        to.begin(bytes);
        to.put = self.pinned().put_so_far();
        let (stream, arrival) = (self.context.stream, to.arrival);
        // SAFETY: the memory has as many bytes, and the place is not read, written or freed before the event was reached.
        ok("copy from the device", unsafe {
            result::memcpy_dtoh_async(to.bytes(), from.address, stream)
                .and_then(|()| event::record(arrival, stream))
        });
    }

    fn landed<'a>(&self, landing: &'a mut GpuLanding) -> &'a [u8] {
        self.context.bind();
        // SAFETY: it was recorded when this was sent.
        unsafe { self.context.reach(landing.arrival) }.unwrap_or_else(Unfinished::panic);
        self.pinned().has_read(landing.put);
        landing.bytes()
    }

    fn parcel(&self, bytes: usize) -> GpuParcel {
        GpuParcel::new(&self.context, self.allocate(bytes))
    }

    fn put(&self, from: &GpuMemory, bytes: usize, parcel: &mut GpuParcel) {
        assert!(bytes <= from.bytes, "{bytes} bytes of {}", from.bytes);
        self.context.bind();
        parcel.put(&self.context, from.address, bytes);
    }

    fn take(&self, parcel: &mut GpuParcel, bytes: usize, to: &GpuMemory) {
        assert!(bytes <= to.bytes, "{bytes} bytes to {}", to.bytes);
        self.context.bind();
        parcel.take(&self.context, bytes, to.address);
    }

    fn send_on(&self, parcel: &mut GpuParcel, bytes: usize) {
        self.context.bind();
        let connections = self.context.connections();
        parcel.send(&connections.links.as_ref().expect("a device that is linked").next, bytes);
    }

    fn receive(&self, parcel: &mut GpuParcel, bytes: usize) {
        self.context.bind();
        let connections = self.context.connections();
        parcel.receive(&connections.links.as_ref().expect("a device that is linked").before, bytes);
    }

    unsafe fn run(&self, work: &Work) {
        self.context.bind();
        let stream = self.context.stream;
        match *work {
            // SAFETY: the caller vouches for it.
            Work::Launch(ref launch) => unsafe { self.launch(launch) },
            Work::Clear { address, bytes } => {
                // SAFETY: the caller vouches for the address.
                ok("clear memory", unsafe { result::memset_d8_async(address, 0, bytes, stream) });
            }
            Work::Gather { from, bytes, to } => {
                let connections = self.context.connections();
                let group = connections.group.as_ref().expect("a device of a group");
                // SAFETY: as above.
                unsafe { group.all_gather(from, bytes, to, stream) }
            }
        }
    }

    unsafe fn graph(&self, work: &[Work]) -> Option<GpuGraph> {
        self.context.bind();
        let stream = self.context.stream;
        // Whatever other threads do with the driver meanwhile is none of this stream's business.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is this context's.
        unsafe { stream::begin_capture(stream, mode) }.ok()?;
        // SAFETY: the caller vouches for it where it is replayed; here nothing runs.
        work.iter().for_each(|work| unsafe { self.run(work) });
        // SAFETY: begun above.
        let recorded = unsafe { stream::end_capture(stream) }.ok()?;
        let is_shared = work.iter().any(Work::is_shared);
        GpuGraph::new(&self.context, recorded, is_shared).ok()
    }

    unsafe fn replay(&self, graph: &GpuGraph) {
        self.context.bind();
        // SAFETY: the caller vouches for what it does.
        unsafe { graph.launch() }
    }

    fn mark(&self, mark: &mut Option<GpuMark>) {
        self.context.bind();
        let mark = mark.get_or_insert_with(|| ok("make an event", GpuMark::new(&self.context)));
        mark.put = self.pinned().put_so_far();
        // SAFETY: the event and the stream are this context's.
        ok("note a moment", unsafe { event::record(mark.event, self.context.stream) });
    }

    fn is_past(&self, mark: &GpuMark) -> bool {
        self.context.bind();
        // SAFETY: it was recorded when it was marked. An error is for those to tell who wait for it.
        unsafe {
            cuEventQuery(mark.event) != CUresult::CUDA_ERROR_NOT_READY || self.context.connections().is_lost()
        }
    }

    fn between(&self, from: &GpuMark, to: &GpuMark) -> Duration {
        self.context.bind();
        // SAFETY: it was recorded when it was marked.
        unsafe { self.context.reach(to.event) }.unwrap_or_else(Unfinished::panic);
        self.pinned().has_read(to.put);
        // SAFETY: both were recorded, the first before the second, which is reached.
        let milliseconds = ok("tell the time", unsafe { event::elapsed(from.event, to.event) });
        Duration::from_secs_f32(milliseconds.max(0.0) / 1e3)
    }

    fn wait(&self) {
        self.context.bind();
        self.finish(&mut self.pinned());
    }

    fn ranks(&self) -> Option<usize> {
        self.context.connections().group.as_ref().map(Communicator::ranks)
    }

    fn records_gathers(&self) -> bool {
        self.context.connections().group.as_ref().is_some_and(Communicator::records)
    }

    fn is_linked(&self) -> bool {
        self.context.connections().links.is_some()
    }

    fn unlink(&self) {
        // Errors are those of earlier work.
        // SAFETY: the context is retained as long as this lives.
        let _ = unsafe { ctx::set_current(self.context.context) };
        self.context.connections().unlink();
    }
}
