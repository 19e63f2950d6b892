//! The tensors of a model: one `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
//!
//! Opening reads headers only; [`Checkpoint::verify`] holds them against a config, and [`Checkpoint::weight`]
//! pages one tensor in.

mod damage;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensors, TensorInfo};
use serde::Deserialize;
use windlass_kernels::mapped::MappedFile;
use windlass_kernels::{Stored, Weight};
use windlass_wording::plain;
use xxhash_rust::xxh3::Xxh3Default;

use crate::config::ModelConfig;
use crate::error::LoadError;

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The embedding.
pub(crate) const EMBEDDING: &str = "transformer.wte.weight";
/// The head of an untied model.
pub(crate) const HEAD: &str = "lm_head.weight";
/// A table that published checkpoints carry; it is computed from the config instead.
const IGNORED: &str = "freqs_cis";

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<WeightFile>,
    /// Which of `files` holds a tensor.
    places: BTreeMap<String, usize>,
    /// What to name when a tensor is in no file.
    listing: PathBuf,
}

#[derive(Debug)]
struct WeightFile {
    path: PathBuf,
    bytes: Bytes,
    metadata: Metadata,
    /// Where the tensors' bytes begin in `bytes`.
    data_start: usize,
}

#[derive(Debug)]
enum Bytes {
    Mapped(MappedFile),
    Static(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(file) => file,
            Self::Static(bytes) => bytes,
        }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens the weights in `folder`: `model.safetensors` where there is one, else the index and all its shards.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        if folder.join(WHOLE).exists() {
            let path = folder.join(WHOLE);
            return Self::from_files(vec![WeightFile::open(path.clone())?], path);
        }
        let path = folder.join(INDEX);
        if !path.exists() {
            let missing = "model.safetensors or model.safetensors.index.json";
            return Err(LoadError::NotAModel { path: folder.to_owned(), missing });
        }
        let bytes = std::fs::read(&path).map_err(|source| LoadError::Io { path: path.clone(), source })?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| LoadError::Index { file: path.clone(), reason: plain(&error.to_string()) })?;
        let shards: BTreeSet<&String> = index.weight_map.values().collect();
        let files = shards.into_iter().map(|shard| open_shard(folder, shard)).collect::<Result<_, _>>()?;
        let checkpoint = Self::from_files(files, path)?;
        checkpoint.check_index(folder, &index)?;
        Ok(checkpoint)
    }

    /// Opens a checkpoint of one file that is part of the binary.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, LoadError> {
        let path = PathBuf::from(name);
        Self::from_files(vec![WeightFile::parse(path.clone(), Bytes::Static(bytes))?], path)
    }

    fn from_files(files: Vec<WeightFile>, listing: PathBuf) -> Result<Self, LoadError> {
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            for tensor in file.metadata.tensors().into_keys() {
                if let Some(&first) = places.get(&tensor) {
                    let (first, second) = (files[first].path.clone(), file.path.clone());
                    return Err(LoadError::Duplicate { tensor, first, second });
                }
                places.insert(tensor, i);
            }
        }
        Ok(Self { files, places, listing })
    }

    fn check_index(&self, folder: &Path, index: &Index) -> Result<(), LoadError> {
        for (tensor, shard) in &index.weight_map {
            if self.places.get(tensor).is_none_or(|&i| self.files[i].path != folder.join(shard)) {
                let reason = format!("tensor {tensor} is not in {shard}, where it is listed");
                return Err(LoadError::Index { file: self.listing.clone(), reason });
            }
        }
        Ok(())
    }

    /// Whether the checkpoint has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Bytes of all tensors that a model can be made of, as stored.
    pub fn total_bytes(&self) -> u64 {
        self.bytes_under("")
    }

    /// Bytes of the tensors whose names begin with `prefix`, as stored.
    pub fn bytes_under(&self, prefix: &str) -> u64 {
        let names = self.places.keys().filter(|name| name.starts_with(prefix) && *name != IGNORED);
        names
            .map(|name| {
                self.find(name).map_or(0, |(_, info)| (info.data_offsets.1 - info.data_offsets.0) as u64)
            })
            .sum()
    }

    /// Checks names, shapes and types of all tensors against `config` without reading them: none is missing,
    /// none is left over. A tied model may carry its head twice, if both are equal bit for bit; only then are
    /// weights read.
    pub fn verify(&self, config: &ModelConfig) -> Result<(), LoadError> {
        let expected = config.tensors();
        for (name, shape) in &expected {
            self.checked(name, shape)?;
        }
        let names: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        for (name, &file) in &self.places {
            let file = &self.files[file].path;
            if config.tied && name == HEAD {
                self.check_tied_head(config, file)?;
            } else if name != IGNORED && !names.contains(name.as_str()) {
                return Err(LoadError::UnknownTensor { file: file.clone(), tensor: name.clone() });
            }
        }
        Ok(())
    }

    fn check_tied_head(&self, config: &ModelConfig, file: &Path) -> Result<(), LoadError> {
        let shape = [config.vocabulary, config.hidden];
        let (head, embedding) = (self.checked(HEAD, &shape)?, self.checked(EMBEDDING, &shape)?);
        if head.1.dtype != embedding.1.dtype || head.0.data(head.1) != embedding.0.data(embedding.1) {
            return Err(LoadError::UntiedHead { file: file.to_owned() });
        }
        Ok(())
    }

    /// One tensor where it is stored, as F32, F16 or BF16: rows as long as its last dimension. It must have exactly this shape; all
    /// its numbers are finite.
    pub fn weight(&self, name: &str, shape: &[usize]) -> Result<Weight<'_>, LoadError> {
        let (file, info) = self.checked(name, shape)?;
        let stored = readable(info.dtype).expect("checked above");
        let weight = Weight::new(file.data(info), stored, *shape.last().expect("no tensor is a number"));
        match weight.not_finite() {
            None => Ok(weight),
            Some((index, value)) => {
                Err(LoadError::NotFinite { file: file.path.clone(), tensor: name.to_owned(), value, index })
            }
        }
    }

    /// The same as f32, row-major.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        Ok(self.weight(name, shape)?.to_vec())
    }

    /// Finds a tensor and checks its shape and type.
    fn checked(&self, name: &str, shape: &[usize]) -> Result<(&WeightFile, &TensorInfo), LoadError> {
        let tensor = name.to_owned();
        let expected = shape.to_vec();
        let Some((file, info)) = self.find(name) else {
            return Err(LoadError::MissingTensor { file: self.listing.clone(), tensor, expected });
        };
        if info.shape != shape {
            return Err(LoadError::Shape {
                file: file.path.clone(),
                tensor,
                expected,
                found: info.shape.clone(),
            });
        }
        if readable(info.dtype).is_none() {
            return Err(LoadError::Dtype {
                file: file.path.clone(),
                tensor,
                found: format!("{:?}", info.dtype),
            });
        }
        Ok((file, info))
    }

    /// A hash (XXH3) of every tensor's name, type, shape and bytes; the same for the same tensors in other shards.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Xxh3Default::new();
        for name in self.places.keys().filter(|name| *name != IGNORED) {
            let (file, info) = self.find(name).expect("a listed tensor");
            hash.update(format!("{name} {:?} {:?} ", info.dtype, info.shape).as_bytes());
            hash.update(file.data(info));
            file.forget(info);
        }
        hash.digest()
    }

    /// Gives back the memory that tensors take whose names begin with `prefix`, and which have been read. They can be read again.
    pub fn forget(&self, prefix: &str) {
        for name in self.places.keys().filter(|name| name.starts_with(prefix)) {
            let (file, info) = self.find(name).expect("a listed tensor");
            file.forget(info);
        }
    }

    fn find(&self, name: &str) -> Option<(&WeightFile, &TensorInfo)> {
        let file = &self.files[*self.places.get(name)?];
        Some((file, file.metadata.info(name)?))
    }
}

impl WeightFile {
    fn open(path: PathBuf) -> Result<Self, LoadError> {
        match MappedFile::open(&path) {
            Ok(mapped) => Self::parse(path, Bytes::Mapped(mapped)),
            Err(source) => Err(LoadError::Io { path, source }),
        }
    }

    fn parse(path: PathBuf, bytes: Bytes) -> Result<Self, LoadError> {
        match SafeTensors::read_metadata(&bytes) {
            // The header's own length comes first, as a u64.
            Ok((header, metadata)) => {
                Ok(Self { path, bytes, metadata, data_start: header + size_of::<u64>() })
            }
            Err(source) => Err(damage::diagnose(path, &bytes, source)),
        }
    }

    fn data(&self, info: &TensorInfo) -> &[u8] {
        &self.bytes[self.range(info)]
    }

    fn range(&self, info: &TensorInfo) -> Range<usize> {
        let (start, end) = info.data_offsets;
        self.data_start + start..self.data_start + end
    }

    fn forget(&self, info: &TensorInfo) {
        if let Bytes::Mapped(file) = &self.bytes {
            file.forget(self.range(info));
        }
    }
}

fn open_shard(folder: &Path, shard: &str) -> Result<WeightFile, LoadError> {
    if Path::new(shard).file_name().is_none_or(|name| name != shard) {
        let reason = format!("shard {shard} must be the plain name of a file in the folder");
        return Err(LoadError::Index { file: folder.join(INDEX), reason });
    }
    let path = folder.join(shard);
    if !path.exists() {
        return Err(LoadError::AbsentShard { index: folder.join(INDEX), shard: shard.to_owned() });
    }
    WeightFile::open(path)
}

fn readable(dtype: Dtype) -> Option<Stored> {
    match dtype {
        Dtype::F32 => Some(Stored::F32),
        Dtype::F16 => Some(Stored::F16),
        Dtype::BF16 => Some(Stored::Bf16),
        _ => None,
    }
}
