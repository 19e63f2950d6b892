//! What `deploy/` says of containers and Kubernetes.

use anyhow::Result;
use windlass_tests::python;

#[test]
fn the_manifests_are_valid_and_whole() -> Result<()> {
    python("manifests.py", &[concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy")])
}
