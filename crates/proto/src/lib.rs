//! The gRPC API of Windlass, generated from `proto/windlass/v1/*.proto`. No logic lives here.

/// Messages and services of package `windlass.v1`.
#[expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated; the .proto files carry the documentation"
)]
pub mod v1 {
    tonic::include_proto!("windlass.v1");
}

/// The encoded `FileDescriptorSet` of what a coordinator serves to everyone, for gRPC reflection.
pub const PUBLIC_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.bin"));

/// The definition of what ranks say to each other. Builds that differ in it do not understand each other.
pub const RANKS: &str = include_str!("../../../proto/windlass/v1/ranks.proto");
