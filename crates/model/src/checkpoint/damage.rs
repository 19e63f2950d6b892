//! What is the matter with a file that should hold weights and cannot be read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::SafeTensorError;
use serde::Deserialize;
use serde_json::Value;

use crate::error::LoadError;

/// How a pointer of Git LFS begins.
const LFS_POINTER: &[u8] = b"version https://git-lfs";
/// Bytes that are looked at to tell text from weights.
const BEGINNING: usize = 64;
/// Bytes of the number that says how long the header is.
const LENGTH: usize = size_of::<u64>();

/// The error that says most.
pub(super) fn diagnose(file: PathBuf, bytes: &[u8], source: SafeTensorError) -> LoadError {
    let found = bytes.len() as u64;
    if bytes.starts_with(LFS_POINTER) {
        return LoadError::LfsPointer { file };
    }
    if let Some(beginning) = text(bytes) {
        return LoadError::Text { file, beginning };
    }
    match wanted_bytes(bytes) {
        Some(wanted) if wanted != found => LoadError::Size { file, found, wanted },
        _ => LoadError::Damaged { file, found, source },
    }
}

/// How a text begins, if these bytes are one. Weights begin with a number, most of whose bytes are zero.
fn text(bytes: &[u8]) -> Option<String> {
    let beginning = &bytes[..bytes.len().min(BEGINNING)];
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    if beginning.len() < LENGTH || !beginning.iter().all(is_text) {
        return None;
    }
    let line = beginning.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Some(String::from_utf8_lossy(line).trim().to_owned())
}

/// How long the file must be by its header, or by the header's own length where that was cut short.
fn wanted_bytes(bytes: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Tensor {
        data_offsets: (u64, u64),
    }
    let length = bytes.first_chunk::<LENGTH>()?;
    let data_start = u64::from_le_bytes(*length).checked_add(LENGTH as u64)?;
    let Some(header) = bytes.get(LENGTH..usize::try_from(data_start).ok()?) else {
        return Some(data_start);
    };
    let mut entries: BTreeMap<String, Value> = serde_json::from_slice(header).ok()?;
    entries.remove("__metadata__");
    let ends = entries.into_values().map(|entry| Some(Tensor::deserialize(entry).ok()?.data_offsets.1));
    let end = ends.collect::<Option<Vec<_>>>()?.into_iter().max().unwrap_or(0);
    data_start.checked_add(end)
}
