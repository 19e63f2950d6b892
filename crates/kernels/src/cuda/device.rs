//! What the backend asks of a device: memory, copies, and work, in the order it is asked for.
//!
//! A GPU is one; in tests an emulator is another, so that all but the driver's own calls is the same code in both.

use std::fmt;
use std::time::Duration;

/// Memory of a device, freed when dropped.
pub trait Memory: Send + fmt::Debug {
    /// Where it begins, as kernels see it; aligned to 16 bytes at least.
    fn address(&self) -> u64;
    /// Its length in bytes.
    fn bytes(&self) -> usize;
}

/// A device. Everything runs in the order of the calls; [`Device::download`], [`Device::landed`] and [`Device::wait`] wait, and
/// [`Device::upload`] where much was uploaded that the device has not read.
///
/// Operations panic where the device fails: there is nothing else that a tick could do.
pub trait Device: Send + Sync + fmt::Debug + 'static {
    /// Its memory.
    type Memory: Memory;
    /// Host memory for what it sends.
    type Landing: Send + fmt::Debug;
    /// A moment in the order of what it is asked for.
    type Mark: Send + fmt::Debug;
    /// Work that was put together, to be run in one piece again and again.
    type Graph: Send + fmt::Debug;
    /// Memory whose contents another device of this process takes.
    type Parcel: Send + fmt::Debug;

    /// `bytes` of zeros.
    fn allocate(&self, bytes: usize) -> Self::Memory;
    /// Copies `from` to the start of `to`. `from` may be reused when this returns.
    fn upload(&self, from: &[u8], to: &Self::Memory);
    /// Copies the start of `from` to `to`, after everything asked for before.
    fn download(&self, from: &Self::Memory, to: &mut [u8]);
    /// Host memory for `bytes` that are sent; it grows with what is.
    fn landing(&self, bytes: usize) -> Self::Landing;
    /// Begins to copy the first `bytes` of `from` to the host, after everything asked for before. What was sent there before has
    /// landed, or nobody looks at it.
    fn send(&self, from: &Self::Memory, bytes: usize, to: &mut Self::Landing);
    /// What was last sent there. Waits for that, and for nothing asked for later.
    fn landed<'a>(&self, landing: &'a mut Self::Landing) -> &'a [u8];
    /// A parcel of `bytes` from this device, in which nothing is. It is always the same device that takes what is put there.
    fn parcel(&self, bytes: usize) -> Self::Parcel;
    /// Copies the first `bytes` of `from` to `parcel`, after everything asked for before and when what was put there has been taken.
    fn put(&self, from: &Self::Memory, bytes: usize, parcel: &mut Self::Parcel);
    /// Copies the first `bytes` of what another device put into `parcel` to the start of `to`, when that is there and after everything
    /// asked for before.
    fn take(&self, parcel: &mut Self::Parcel, bytes: usize, to: &Self::Memory);
    /// Sends the first `bytes` of what was put into `parcel` to the device of the next stage, in another process. What is put there next
    /// waits until they are taken; nothing else does.
    fn send_on(&self, parcel: &mut Self::Parcel, bytes: usize);
    /// Puts the next `bytes` that the device of the stage before has sent, in another process, into `parcel`, when they are there and when
    /// what was put there has been taken.
    fn receive(&self, parcel: &mut Self::Parcel, bytes: usize);
    /// Runs `work`.
    ///
    /// # Safety
    /// Every address in it leads to as much memory of this device as it touches there. The arguments of a kernel are as many, and of
    /// the types, that its source declares.
    #[expect(unsafe_code, reason = "work believes the addresses it is given")]
    unsafe fn run(&self, work: &Work);
    /// Puts work together, without running it; none where the device cannot. What all ranks do they put together alike, and replay
    /// together.
    ///
    /// # Safety
    /// As for [`Device::run`], where it is replayed.
    #[expect(unsafe_code, reason = "as above")]
    unsafe fn graph(&self, work: &[Work]) -> Option<Self::Graph>;
    /// Runs work that was put together.
    ///
    /// # Safety
    /// As for [`Device::run`].
    #[expect(unsafe_code, reason = "as above")]
    unsafe fn replay(&self, graph: &Self::Graph);
    /// Makes `mark` this moment.
    fn mark(&self, mark: &mut Option<Self::Mark>);
    /// Whether a moment is past. Does not wait for it.
    fn is_past(&self, mark: &Self::Mark) -> bool;
    /// How long it took from one moment to another. Waits for the second.
    fn between(&self, from: &Self::Mark, to: &Self::Mark) -> Duration;
    /// Waits for everything asked for before.
    fn wait(&self);
    /// How many devices the group has that it is in, one for each rank; none if it is in none.
    fn ranks(&self) -> Option<usize>;
    /// Whether what ranks gather can be part of a graph.
    fn records_gathers(&self) -> bool;
    /// Whether it is linked to devices of other processes, those of the stage before and of the next.
    fn is_linked(&self) -> bool;
    /// Ends what is under way from them and to them.
    fn unlink(&self);
}

/// Something to do on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    /// Run a kernel.
    Launch(Launch),
    /// Set memory to zero.
    Clear {
        /// Where.
        address: u64,
        /// How much of it.
        bytes: usize,
    },
    /// Put what every rank of the group has side by side, by rank. All ranks do it alike.
    Gather {
        /// Where this rank's part is.
        from: u64,
        /// Its length, a multiple of four.
        bytes: usize,
        /// Where they all go.
        to: u64,
    },
}

/// A kernel's launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Launch {
    /// Which kernel.
    pub kernel: Kernel,
    /// Its blocks.
    pub grid: Grid,
    /// Its arguments, then zeros.
    arguments: [Argument; Self::MOST_ARGUMENTS],
    /// How many arguments there are.
    count: usize,
}

impl Launch {
    /// More than any kernel has.
    pub const MOST_ARGUMENTS: usize = 12;

    /// Of so many blocks, with these arguments.
    pub(super) fn new(kernel: Kernel, grid: Grid, given: &[Argument]) -> Self {
        let mut arguments = [Argument::NULL; Self::MOST_ARGUMENTS];
        arguments[..given.len()].copy_from_slice(given);
        Self { kernel, grid, arguments, count: given.len() }
    }

    /// What the kernel is given.
    pub fn arguments(&self) -> &[Argument] {
        &self.arguments[..self.count]
    }
}

impl Work {
    /// Whether all ranks of a group do it together.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Gather { .. })
    }

    /// Whether it is told of an address from `start` on, before `end`.
    pub(super) fn touches(&self, start: u64, end: u64) -> bool {
        let is_there = |address: u64| (start..end).contains(&address);
        match self {
            Self::Launch(launch) => launch.arguments().iter().any(|argument| is_there(argument.0)),
            Self::Clear { address, .. } => is_there(*address),
            Self::Gather { from, to, .. } => is_there(*from) || is_there(*to),
        }
    }
}

/// Blocks of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// In the first direction.
    pub x: usize,
    /// In the second.
    pub y: usize,
}

impl Grid {
    /// One direction alone.
    pub fn of(x: usize) -> Self {
        Self { x, y: 1 }
    }
}

/// An argument of a kernel: an address, or a number in the low bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Argument(u64);

impl Argument {
    /// No memory: for addresses that may be null.
    pub(super) const NULL: Self = Self(0);

    /// The start of a device's memory.
    pub(super) fn start(memory: &impl Memory) -> Self {
        Self(memory.address())
    }

    /// A place in a device's memory.
    pub(super) fn at(memory: &impl Memory, byte: usize) -> Self {
        Self(memory.address() + byte as u64)
    }

    /// A count; kernels take 32 bits.
    pub(super) fn count(count: usize) -> Self {
        Self(u64::from(u32::try_from(count).expect("kernels count in 32 bits")))
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self(u64::from(value.to_bits()))
    }
}

/// Declares the kernels once: as an enum, and by the names that their sources give them.
macro_rules! kernels {
    ($($kernel:ident $name:literal $threads:literal,)*) => {
        /// A kernel of the sources in `cuda/`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kernel {
            $(#[doc = $name] $kernel,)*
        }

        impl Kernel {
            /// All of them, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$kernel,)*];

            /// Its name in the source.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kernel => $name,)*
                }
            }

            /// Threads of one of its blocks.
            pub fn threads(self) -> usize {
                match self {
                    $(Self::$kernel => $threads,)*
                }
            }
        }
    };
}

kernels! {
    Scatter "scatter" 256,
    Embed "embed" 256,
    PrepareBf16 "prepare_bf16" 256,
    PrepareF32 "prepare_f32" 256,
    PackBf16 "pack_bf16" 256,
    PackF32 "pack_f32" 256,
    NarrowStore "narrow_store" 256,
    NarrowGate "narrow_gate" 256,
    NarrowLargest "narrow_largest" 256,
    MediumStore "medium_store" 128,
    MediumGate "medium_gate" 128,
    MediumLargest "medium_largest" 128,
    WideStore "wide_store" 256,
    WideGate "wide_gate" 256,
    WideLargest "wide_largest" 256,
    F32Store "f32_store" 256,
    F32Gate "f32_gate" 256,
    F32Largest "f32_largest" 256,
    RmsNorm "rms_norm" 256,
    AddRmsNorm "add_rms_norm" 256,
    AddNormNorm "add_norm_norm" 256,
    AddNormCommit "add_norm_commit" 256,
    RotateAndStoreF32 "rotate_and_store_f32" 256,
    RotateAndStoreBf16 "rotate_and_store_bf16" 256,
    AttentionF32 "attention_f32" 128,
    AttentionBf16To96 "attention_bf16_96" 128,
    AttentionBf16To256 "attention_bf16_256" 128,
    SetWords "set_words" 256,
    AddRanks "add_ranks" 256,
    JoinParts "join_parts" 256,
    Draw "draw" 256,
}
