//! A device on this machine's cores, for tests: the kernels' sources compiled by g++.
#![expect(unsafe_code, reason = "calls what g++ compiled, on memory that it reads and writes by address")]

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libloading::Library;

use super::device::{Device, Launch as KernelLaunch, Memory, Work};
use super::source;
use crate::group::{Seat, seats};

/// `windlass_launch` of `cuda/emulation/launch.hpp`.
type Launch = unsafe extern "C" fn(*const c_char, c_uint, c_uint, c_uint, *mut *mut c_void) -> c_int;

/// Why the kernels cannot be compiled for this machine.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The compiler cannot be started, or its files not be written.
    #[error("g++ cannot be run: {0}: install it")]
    Start(#[from] io::Error),
    /// The compiler refuses them.
    #[error("g++ refuses the kernels:\n{0}")]
    Compile(String),
    /// What it made cannot be loaded.
    #[error("the compiled kernels cannot be loaded: {0}")]
    Load(#[from] libloading::Error),
}

/// Runs kernels on the calling thread.
#[derive(Debug)]
pub struct Emulator {
    program: &'static Program,
    /// Its place in its group, if it is in one.
    seat: Mutex<Option<Seat>>,
    /// From the device of the stage before and to that of the next, if it is linked to them.
    links: Arc<Mutex<Option<[Arc<EmulatorLink>; 2]>>>,
    /// How many graphs it has made with gathers.
    graphs: AtomicUsize,
    /// How often somebody has asked whether a moment is past.
    looks: AtomicUsize,
}

/// What a device sends and another receives, until either ends it: then what is under way is lost.
#[derive(Debug)]
pub struct EmulatorLink {
    parcels: Mutex<Option<VecDeque<Vec<u8>>>>,
    changed: Condvar,
}

/// Work that was put together.
#[derive(Debug)]
pub struct EmulatorGraph {
    work: Vec<Work>,
    /// Which of those with gathers it is.
    number: usize,
}

/// The kernels.
#[derive(Debug)]
struct Program {
    launch: Launch,
    /// What `launch` is in.
    _library: Library,
}

impl Emulator {
    /// Compiles the kernels, once per process.
    pub fn get() -> Self {
        static PROGRAM: OnceLock<Program> = OnceLock::new();
        let program = PROGRAM.get_or_init(|| Program::compile().unwrap_or_else(|error| panic!("{error}")));
        Self {
            program,
            seat: Mutex::default(),
            links: Arc::default(),
            graphs: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
        }
    }

    /// A group of devices, by rank.
    pub fn group(ranks: usize) -> Vec<Self> {
        let seated = |seat| {
            let device = Self::get();
            device.join(seat);
            device
        };
        seats(ranks).into_iter().map(seated).collect()
    }

    /// Takes its place in a group.
    pub fn join(&self, seat: Seat) {
        *self.seat() = Some(seat);
    }

    /// Is linked to the devices of the stage before and of the next.
    pub fn link(&self, before: Arc<EmulatorLink>, next: Arc<EmulatorLink>) {
        *self.links() = Some([before, next]);
    }

    fn launch(&self, launch: &KernelLaunch) {
        let name = CString::new(launch.kernel.name()).expect("names without zeros");
        let arguments = launch.arguments().iter();
        let mut pointers: Vec<*mut c_void> =
            arguments.map(|argument| std::ptr::from_ref(argument).cast_mut().cast()).collect();
        let [x, y, threads] = [launch.grid.x, launch.grid.y, launch.kernel.threads()]
            .map(|count| u32::try_from(count).expect("a grid of 32 bits"));
        // SAFETY: who asked for this vouched for the arguments; each pointer leads to eight bytes, of which the kernel reads as many
        // as its parameter has.
        let result = unsafe { (self.program.launch)(name.as_ptr(), x, y, threads, pointers.as_mut_ptr()) };
        assert_eq!(result, 0, "no kernel {}", launch.kernel.name());
    }

    /// Runs work of a graph, if it is of one, with its place there.
    ///
    /// # Safety
    /// As for [`Device::run`].
    unsafe fn run_of(&self, graph: Option<(usize, usize)>, work: &Work) {
        match work {
            Work::Launch(launch) => self.launch(launch),
            // SAFETY: the caller vouches for the address.
            Work::Clear { address, bytes } => unsafe { place(*address).write_bytes(0, *bytes) },
            Work::Gather { from, bytes, to } => self.all_gather(graph, *from, *bytes, *to),
        }
    }

    /// Gathers, once it is clear that all ranks do so in the same graph at the same place, or all by itself, as NCCL wants it.
    fn all_gather(&self, graph: Option<(usize, usize)>, from: u64, bytes: usize, to: u64) {
        let numbers = bytes / size_of::<f32>();
        let mut seat = self.seat();
        let seat = seat.as_mut().expect("a device of a group");
        let (graph, at) = graph.unwrap_or((usize::MAX, usize::MAX));
        let way = [graph, graph >> 32, at, at >> 32].map(|bits| f32::from_bits(bits as u32));
        seat.put(&way);
        seat.take(|rank, of_rank| {
            let is_same = way.iter().zip(of_rank).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(is_same, "rank {rank} gathers in another graph, or at another place");
        });
        // SAFETY: who asked for this asserted that the memory has as many numbers, of which any bits are one, and it is aligned for
        // more; nobody writes to it while its device reads.
        seat.put(unsafe { std::slice::from_raw_parts(place(from).cast(), numbers) });
        seat.take(|rank, of_rank| {
            assert_eq!(of_rank.len(), numbers, "ranks differ in what they gather");
            // SAFETY: as above, there is room for each rank, and what ranks put down is memory of its own.
            unsafe {
                place(to)
                    .cast::<f32>()
                    .add(rank * numbers)
                    .copy_from_nonoverlapping(of_rank.as_ptr(), numbers)
            }
        });
    }

    fn seat(&self) -> MutexGuard<'_, Option<Seat>> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, Option<[Arc<EmulatorLink>; 2]>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EmulatorLink {
    /// A link on which nothing is under way.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { parcels: Mutex::new(Some(VecDeque::new())), changed: Condvar::new() })
    }

    fn parcels(&self) -> MutexGuard<'_, Option<VecDeque<Vec<u8>>>> {
        self.parcels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Program {
    fn compile() -> Result<Self, EmulatorError> {
        let folder = tempfile::tempdir()?;
        let [text, library] = ["kernels.cpp", "kernels.so"].map(|name| folder.path().join(name));
        std::fs::write(&text, source::for_emulator())?;
        let output = Command::new("g++")
            .args(["-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"])
            .args(["-Wno-unknown-pragmas", "-o"])
            .args([&library, &text])
            .output()?;
        if !output.status.success() {
            return Err(EmulatorError::Compile(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        // SAFETY: the library was just made from our own sources; it runs nothing when it is loaded.
        let library = unsafe { Library::new(&library) }?;
        // SAFETY: the symbol is a function of this type.
        let launch = *unsafe { library.get::<Launch>(b"windlass_launch\0") }?;
        Ok(Self { launch, _library: library })
    }
}

/// Memory of this machine, aligned as a device's.
#[derive(Debug)]
pub struct EmulatorMemory {
    data: Box<[UnsafeCell<u128>]>,
    bytes: usize,
    /// Its device's.
    links: Arc<Mutex<Option<[Arc<EmulatorLink>; 2]>>>,
}

impl Drop for EmulatorMemory {
    /// A GPU frees memory when all that it has under way is done.
    fn drop(&mut self) {
        if let Some([_, next]) = &*self.links.lock().unwrap_or_else(PoisonError::into_inner) {
            let is_waiting = next.parcels().as_ref().is_some_and(|parcels| !parcels.is_empty());
            assert!(thread::panicking() || !is_waiting, "memory is freed while rows wait for the next stage");
        }
    }
}

impl EmulatorMemory {
    fn start(&self) -> *mut u8 {
        self.data.as_ptr().cast_mut().cast()
    }
}

/// Memory of which the address was given away.
fn place(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

impl Memory for EmulatorMemory {
    fn address(&self) -> u64 {
        self.start().expose_provenance() as u64
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Device for Emulator {
    type Memory = EmulatorMemory;
    type Landing = Vec<u8>;
    type Mark = Instant;
    type Graph = EmulatorGraph;
    type Parcel = Vec<u8>;

    fn allocate(&self, bytes: usize) -> EmulatorMemory {
        let data = (0..bytes.div_ceil(16)).map(|_| UnsafeCell::new(0)).collect();
        EmulatorMemory { data, bytes, links: Arc::clone(&self.links) }
    }

    fn upload(&self, from: &[u8], to: &EmulatorMemory) {
        assert!(from.len() <= to.bytes, "{} bytes to {}", from.len(), to.bytes);
        // SAFETY: as above; `from` is memory of its own.
        unsafe { to.start().copy_from_nonoverlapping(from.as_ptr(), from.len()) }
    }

    fn download(&self, from: &EmulatorMemory, to: &mut [u8]) {
        assert!(to.len() <= from.bytes, "{} bytes of {}", to.len(), from.bytes);
        // SAFETY: as above.
        unsafe { to.as_mut_ptr().copy_from_nonoverlapping(from.start(), to.len()) }
    }

    fn landing(&self, bytes: usize) -> Vec<u8> {
        Vec::with_capacity(bytes)
    }

    fn send(&self, from: &EmulatorMemory, bytes: usize, to: &mut Vec<u8>) {
        to.resize(bytes, 0);
        self.download(from, to);
    }

    fn landed<'a>(&self, landing: &'a mut Vec<u8>) -> &'a [u8] {
        landing
    }

    fn parcel(&self, bytes: usize) -> Vec<u8> {
        Vec::with_capacity(bytes)
    }

    fn put(&self, from: &EmulatorMemory, bytes: usize, parcel: &mut Vec<u8>) {
        self.send(from, bytes, parcel);
    }

    fn take(&self, parcel: &mut Vec<u8>, bytes: usize, to: &EmulatorMemory) {
        self.upload(&parcel[..bytes], to);
    }

    fn send_on(&self, parcel: &mut Vec<u8>, bytes: usize) {
        let links = self.links();
        let [_, next] = links.as_ref().expect("a device that is linked");
        // Where it has ended, nobody waits.
        next.parcels().iter_mut().for_each(|parcels| parcels.push_back(parcel[..bytes].to_vec()));
        next.changed.notify_all();
    }

    fn receive(&self, parcel: &mut Vec<u8>, bytes: usize) {
        let links = self.links();
        let [before, _] = links.as_ref().expect("a device that is linked");
        let is_to_come = |parcels: &mut Option<VecDeque<_>>| parcels.as_ref().is_some_and(VecDeque::is_empty);
        let parcels = before.changed.wait_while(before.parcels(), is_to_come);
        let mut parcels = parcels.unwrap_or_else(PoisonError::into_inner);
        *parcel = parcels.as_mut().and_then(VecDeque::pop_front).expect("the stage before is lost");
        assert_eq!(parcel.len(), bytes, "stages differ in what they hand over");
    }

    unsafe fn run(&self, work: &Work) {
        // SAFETY: as the caller's.
        unsafe { self.run_of(None, work) }
    }

    unsafe fn graph(&self, work: &[Work]) -> Option<EmulatorGraph> {
        let is_shared = work.iter().any(Work::is_shared);
        let number = self.graphs.fetch_add(usize::from(is_shared), Ordering::Relaxed);
        Some(EmulatorGraph { work: work.to_vec(), number })
    }

    unsafe fn replay(&self, graph: &EmulatorGraph) {
        for (at, work) in graph.work.iter().enumerate() {
            // SAFETY: as the caller's.
            unsafe { self.run_of(Some((graph.number, at)), work) }
        }
    }

    fn mark(&self, mark: &mut Option<Instant>) {
        *mark = Some(Instant::now());
    }

    /// Seldom at once, as where a device has begun something and not done it: what is asked for meanwhile must not matter.
    fn is_past(&self, _: &Instant) -> bool {
        self.looks.fetch_add(1, Ordering::Relaxed) % 4 == 3
    }

    fn between(&self, from: &Instant, to: &Instant) -> Duration {
        *to - *from
    }

    fn wait(&self) {}

    fn ranks(&self) -> Option<usize> {
        self.seat().as_ref().map(Seat::ranks)
    }

    fn records_gathers(&self) -> bool {
        true
    }

    fn is_linked(&self) -> bool {
        self.links().is_some()
    }

    fn unlink(&self) {
        for link in self.links().take().into_iter().flatten() {
            *link.parcels() = None;
            link.changed.notify_all();
        }
    }
}
