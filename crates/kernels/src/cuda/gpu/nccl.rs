//! NCCL: its library, and a device's place in a group that it connects.
//!
//! The types are cudarc's. The functions are looked up here, since cudarc looks for the library under names that a machine has
//! only where programs are built against it.

use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use cudarc::driver::sys::CUstream;
use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclDataType_t, ncclResult_t, ncclUniqueId};
use libloading::Library;

use super::graph::Executable;
use crate::cuda_error::CudaError;
use crate::group::Loss;

/// What the loader is asked for.
const FILE: &str = "libnccl.so.2";
/// What everything is sent as.
const BYTE: ncclDataType_t = ncclDataType_t::ncclUint8;

/// A rank, or how many there are.
fn number(count: usize) -> c_int {
    c_int::try_from(count).expect("a number of ranks")
}

/// Declares the functions once: as fields, and by the names that the library gives them.
macro_rules! functions {
    ($($name:ident $symbol:literal ($($argument:ty),*) -> $result:ty;)*) => {
        /// What is used of the library.
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) -> $result,)*
            /// What they are in.
            _library: Library,
        }

        impl Functions {
            fn load() -> Result<Self, libloading::Error> {
                // SAFETY: the library only defines functions, and these are their types.
                unsafe {
                    let library = Library::new(FILE)?;
                    Ok(Self { $($name: *library.get(concat!($symbol, "\0").as_bytes())?,)* _library: library })
                }
            }
        }
    };
}

functions! {
    describe "ncclGetErrorString" (ncclResult_t) -> *const std::ffi::c_char;
    unique_id "ncclGetUniqueId" (*mut ncclUniqueId) -> ncclResult_t;
    begin "ncclGroupStart" () -> ncclResult_t;
    end "ncclGroupEnd" () -> ncclResult_t;
    join "ncclCommInitRank" (*mut ncclComm_t, c_int, ncclUniqueId, c_int) -> ncclResult_t;
    all_gather "ncclAllGather" (*const c_void, *mut c_void, usize, ncclDataType_t, ncclComm_t, cudaStream_t) -> ncclResult_t;
    send "ncclSend" (*const c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> ncclResult_t;
    receive "ncclRecv" (*mut c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> ncclResult_t;
    fault "ncclCommGetAsyncError" (ncclComm_t, *mut ncclResult_t) -> ncclResult_t;
    abort "ncclCommAbort" (ncclComm_t) -> ncclResult_t;
}

impl Functions {
    /// Those of the library, which is loaded once.
    fn get() -> Result<&'static Self, CudaError> {
        static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();
        FUNCTIONS.get_or_init(|| Self::load().ok()).as_ref().ok_or(CudaError::NoNccl { file: FILE })
    }

    fn check(&self, what: &'static str, result: ncclResult_t) -> Result<(), CudaError> {
        if result == ncclResult_t::ncclSuccess {
            return Ok(());
        }
        // SAFETY: gives a text that lives as long as the library.
        let message = unsafe { CStr::from_ptr((self.describe)(result)) };
        Err(CudaError::Nccl { what, message: message.to_string_lossy().into_owned() })
    }
}

/// Whether the library is there.
pub(super) fn is_present() -> bool {
    Functions::get().is_ok()
}

/// Asks for several things together, so that none waits for another.
pub(super) fn together(ask: impl FnOnce()) -> Result<(), CudaError> {
    let functions = Functions::get()?;
    // SAFETY: no arguments; ended below.
    functions.check("begin a group", unsafe { (functions.begin)() })?;
    ask();
    // SAFETY: begun above.
    functions.check("ask for several things together", unsafe { (functions.end)() })
}

/// What all devices of one group are told, so that they find each other, in whatever process.
#[derive(Debug, Clone, Copy)]
pub struct GroupId(ncclUniqueId);

impl GroupId {
    /// One that no other group has. Whoever makes it must live until the group has come together.
    pub fn new() -> Result<Self, CudaError> {
        let functions = Functions::get()?;
        let mut id = ncclUniqueId { internal: [0; 128] };
        // SAFETY: the id is written to its own variable.
        functions.check("name a group", unsafe { (functions.unique_id)(&raw mut id) })?;
        Ok(Self(id))
    }

    /// As [`GroupId::from_bytes`] takes it.
    pub fn to_bytes(self) -> Vec<u8> {
        self.0.internal.map(std::ffi::c_char::cast_unsigned).to_vec()
    }

    /// The id that another process made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CudaError> {
        let wrong =
            |_| CudaError::Nccl { what: "read a group's id", message: format!("{} bytes", bytes.len()) };
        let bytes: [u8; 128] = bytes.try_into().map_err(wrong)?;
        Ok(Self(ncclUniqueId { internal: bytes.map(u8::cast_signed) }))
    }
}

/// A device's place in its group.
pub(super) struct Communicator {
    functions: &'static Functions,
    handle: ncclComm_t,
    ranks: usize,
    /// Whether no other rank is in this process.
    is_alone_here: bool,
    loss: Loss,
    /// Recorded work with gathers, by number, and how much there ever was.
    graphs: HashMap<usize, Executable>,
    recorded: usize,
}

// SAFETY: the library's handles may be used from any thread, by one at a time.
unsafe impl Send for Communicator {}

impl Communicator {
    /// Places for ranks of a group of `ranks`: the i-th is `first` + i, on the device that `bind` makes the thread's own. Waits
    /// until all ranks have come.
    pub(super) fn join(
        id: &GroupId,
        (ranks, first, count): (usize, usize, usize),
        loss: &Loss,
        bind: impl Fn(usize),
    ) -> Result<Vec<Self>, CudaError> {
        let functions = Functions::get()?;
        let mut handles = vec![std::ptr::null_mut(); count];
        // SAFETY: no arguments; ended below.
        functions.check("begin a group", unsafe { (functions.begin)() })?;
        let mut joined = Ok(());
        for (i, handle) in handles.iter_mut().enumerate() {
            bind(i);
            // SAFETY: the handle is written when the group is ended, before which the vector does not move.
            let result = unsafe {
                (functions.join)(std::ptr::from_mut(handle), number(ranks), id.0, number(first + i))
            };
            joined = joined.and(functions.check("join a group", result));
        }
        // SAFETY: begun above.
        let ended = functions.check("bring a group together", unsafe { (functions.end)() });
        let place = |handle| {
            let (is_alone_here, loss, graphs) = (count == 1, loss.clone(), HashMap::new());
            Self { functions, handle, ranks, is_alone_here, loss, graphs, recorded: 0 }
        };
        let places = handles.into_iter().filter(|handle| !handle.is_null()).map(place).collect();
        joined.and(ended).map(|()| places)
    }

    pub(super) fn ranks(&self) -> usize {
        self.ranks
    }

    /// Puts `bytes` at `from` of every rank side by side to `to`, by rank, in the order of `stream`.
    ///
    /// # Safety
    /// `from` leads to as many bytes of this device, `to` to as many of each rank.
    pub(super) unsafe fn all_gather(&self, from: u64, bytes: usize, to: u64, stream: CUstream) {
        let (from, to) = (from as *const c_void, to as *mut c_void);
        // SAFETY: the caller vouches for the addresses; both types of a stream are the same in driver and run-time.
        let result =
            unsafe { (self.functions.all_gather)(from, to, bytes, BYTE, self.handle, stream.cast()) };
        self.functions.check("gather what ranks have", result).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Sends `bytes` at `from` to rank `peer`, in the order of `stream`.
    ///
    /// # Safety
    /// `from` leads to as many bytes of this device.
    pub(super) unsafe fn send(&self, from: u64, bytes: usize, peer: usize, stream: CUstream) {
        let (from, peer) = (from as *const c_void, number(peer));
        // SAFETY: as above.
        let result = unsafe { (self.functions.send)(from, bytes, BYTE, peer, self.handle, stream.cast()) };
        self.functions.check("send rows", result).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Receives `bytes` from rank `peer` to `to`, in the order of `stream`.
    ///
    /// # Safety
    /// `to` leads to as many bytes of this device.
    pub(super) unsafe fn receive(&self, to: u64, bytes: usize, peer: usize, stream: CUstream) {
        let (to, peer) = (to as *mut c_void, number(peer));
        // SAFETY: as above.
        let result = unsafe { (self.functions.receive)(to, bytes, BYTE, peer, self.handle, stream.cast()) };
        self.functions.check("receive rows", result).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Keeps recorded work that has gathers, until it is forgotten or the group is left; returns its number.
    pub(super) fn keep(&mut self, graph: Executable) -> usize {
        self.recorded += 1;
        self.graphs.insert(self.recorded, graph);
        self.recorded
    }

    /// Recorded work of that number.
    pub(super) fn kept(&self, number: usize) -> &Executable {
        &self.graphs[&number]
    }

    /// Gives recorded work up.
    pub(super) fn forget(&mut self, number: usize) {
        self.graphs.remove(&number);
    }

    /// Gives all of it up, in the context that it is of: the group waits for that.
    pub(super) fn forget_all(&mut self) {
        self.graphs.clear();
    }

    /// Whether gathers can be recorded: NCCL warns that several devices of one process might wait for each other then.
    pub(super) fn records(&self) -> bool {
        self.is_alone_here
    }

    /// Tells the others of this process that it is lost.
    pub(super) fn tell(&self) {
        self.loss.tell();
    }

    /// Whether the group is lost, so that what others have will not come.
    pub(super) fn is_lost(&self) -> bool {
        let mut fault = ncclResult_t::ncclSuccess;
        // SAFETY: the fault is written to its own variable.
        let asked = unsafe { (self.functions.fault)(self.handle, &raw mut fault) };
        let is_fault = |result| !matches!(result, ncclResult_t::ncclSuccess | ncclResult_t::ncclInProgress);
        self.loss.is_told() || is_fault(asked) || is_fault(fault)
    }
}

impl Drop for Communicator {
    /// Ends what is under way.
    fn drop(&mut self) {
        self.forget_all();
        // SAFETY: the handle is used no more. In this way a rank need not wait for others, as it must in any other.
        let _: ncclResult_t = unsafe { (self.functions.abort)(self.handle) };
    }
}
