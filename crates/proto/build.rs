//! Compiles `proto/windlass/v1` without an installed `protoc`.

const PROTOS: [&str; 7] = [
    "windlass/v1/generation.proto",
    "windlass/v1/load.proto",
    "windlass/v1/worker.proto",
    "windlass/v1/inference.proto",
    "windlass/v1/cluster.proto",
    "windlass/v1/jobs.proto",
    "windlass/v1/ranks.proto",
];
/// What coordinators serve, with what it imports.
const PUBLIC: [&str; 3] =
    ["windlass/v1/inference.proto", "windlass/v1/cluster.proto", "windlass/v1/jobs.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    println!("cargo:rerun-if-changed={root}");
    let descriptors = protox::compile(PROTOS, [root])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let public = protox::compile(PUBLIC, [root])?;
    std::fs::write(out.join("public.bin"), prost::Message::encode_to_vec(&public))?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
