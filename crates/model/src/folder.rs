//! A model as published: a folder of configs, weights and tokenizer files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoint;
use crate::config::{CONFIG_FILE, GENERATION_FILE, ModelConfig};
use crate::efforts::Efforts;
use crate::error::LoadError;

/// Where a model's files are: a folder, or the demo model that every binary carries.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Folder(PathBuf),
    Demo,
}

/// The demo model's files.
const DEMO: [(&str, &[u8]); 5] = [
    (CONFIG_FILE, include_bytes!("../../../models/demo/config.json")),
    (GENERATION_FILE, include_bytes!("../../../models/demo/generation_config.json")),
    ("tokenizer.json", include_bytes!("../../../models/demo/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../models/demo/tokenizer_config.json")),
    ("model.safetensors", include_bytes!("../../../models/demo/model.safetensors")),
];

impl ModelFolder {
    /// The model in the folder `path`, which must hold a `config.json`.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let path =
            fs::canonicalize(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
        if !path.join(CONFIG_FILE).is_file() {
            return Err(LoadError::NotAModel { path, missing: CONFIG_FILE });
        }
        Ok(Self { place: Place::Folder(path) })
    }

    /// The demo model.
    pub fn demo() -> Self {
        Self { place: Place::Demo }
    }

    /// The demo model for `demo`, else the folder of that path (`./demo` for a folder of that name).
    pub fn from_argument(argument: &str) -> Result<Self, LoadError> {
        if argument == "demo" { Ok(Self::demo()) } else { Self::open(Path::new(argument)) }
    }

    /// The folder's own name, or `demo`.
    pub fn name(&self) -> String {
        match &self.place {
            Place::Folder(path) => path
                .file_name()
                .map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned()),
            Place::Demo => "demo".to_owned(),
        }
    }

    /// The model's sizes, constants and special tokens.
    pub fn config(&self) -> Result<ModelConfig, LoadError> {
        let missing = || match &self.place {
            Place::Folder(path) => LoadError::NotAModel { path: path.clone(), missing: CONFIG_FILE },
            Place::Demo => unreachable!("the demo has all its files"),
        };
        let config = self.text_file(CONFIG_FILE)?.ok_or_else(missing)?;
        let generation = self.text_file(GENERATION_FILE)?;
        Ok(ModelConfig::parse(&config, generation.as_deref())?)
    }

    /// The model's named depth policies.
    pub fn efforts(&self, config: &ModelConfig) -> Result<Efforts, LoadError> {
        Ok(Efforts::parse(self.text_file(GENERATION_FILE)?.as_deref(), config)?)
    }

    /// The contents of one of the folder's small files, if it is there: `tokenizer.json`, `tokenizer_config.json`,
    /// `chat_template.jinja` and the like. A template file, where there is one, stands for the tokenizer
    /// config's key.
    pub fn text_file(&self, name: &str) -> Result<Option<Vec<u8>>, LoadError> {
        match &self.place {
            Place::Demo => Ok(demo_file(name).map(<[u8]>::to_vec)),
            Place::Folder(folder) => {
                let path = folder.join(name);
                match fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(LoadError::Io { path, source }),
                }
            }
        }
    }

    /// The model's tensors, mapped into memory and not yet read.
    pub fn checkpoint(&self) -> Result<Checkpoint, LoadError> {
        match &self.place {
            Place::Folder(path) => Checkpoint::open(path),
            Place::Demo => {
                let name = "model.safetensors";
                Checkpoint::from_static(name, demo_file(name).expect("the demo has all its files"))
            }
        }
    }
}

fn demo_file(name: &str) -> Option<&'static [u8]> {
    DEMO.iter().find(|(file, _)| *file == name).map(|&(_, bytes)| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_demo_is_the_folder_demo() {
        let folder =
            ModelFolder::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo"))).unwrap();
        let demo = ModelFolder::from_argument("demo").unwrap();
        assert_eq!(folder.name(), demo.name());
        assert_eq!(folder.config().unwrap(), demo.config().unwrap());
        assert_eq!(folder.text_file("tokenizer.json").unwrap(), demo.text_file("tokenizer.json").unwrap());
        assert_eq!(demo.text_file("chat_template.jinja").unwrap(), None);
    }

    #[test]
    fn a_folder_without_a_config_is_no_model() {
        let folder = tempfile::tempdir().unwrap();
        let message = ModelFolder::open(folder.path()).unwrap_err().to_string();
        assert!(message.ends_with("is not a model folder: it has no config.json"), "{message}");
        assert!(matches!(ModelFolder::from_argument("/no/such/folder"), Err(LoadError::Io { .. })));
    }
}
