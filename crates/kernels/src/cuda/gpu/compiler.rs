//! Compiles the kernels for a device, and keeps them.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::{fs, io, process};

use cudarc::nvrtc::result::{self, NvrtcError};
use cudarc::nvrtc::sys;
use sha2::{Digest, Sha256};

use crate::cuda::source;
use crate::cuda_error::CudaError;

/// What the loader is asked for.
const FILE: &str = "libnvrtc.so.13";

/// The kernels for `architecture`, from the cache where they are there.
pub(super) fn kernels(architecture: &str, cache: Option<&Path>) -> Result<Vec<u8>, CudaError> {
    let source = source::for_gpu();
    let hash = Sha256::digest([options(architecture).join(" "), source].join("\n").as_bytes());
    let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let file = cache.unwrap_or(Path::new("")).join(format!("{architecture}-{hash}.cubin"));
    if cache.is_some()
        && let Some(image) = kept(&file)
    {
        return Ok(image);
    }
    let image = compile(architecture).map_err(|error| match error {
        CudaError::NoCompiler { architecture, file: library, .. } => {
            CudaError::NoCompiler { architecture, file: library, cached: file.clone() }
        }
        error => error,
    })?;
    if cache.is_some() {
        // A start that is slower next time is no reason not to start.
        let _: io::Result<()> = keep(&file, &image);
    }
    Ok(image)
}

/// Puts an image and its hash into a file, as a whole.
fn keep(file: &Path, image: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = file.with_extension(process::id().to_string());
    fs::write(&draft, [image, &Sha256::digest(image)].concat())?;
    fs::rename(&draft, file)
}

/// The image in a file that [`keep`] made, if it is whole: the loader of images reads as far as they say themselves.
fn kept(file: &Path) -> Option<Vec<u8>> {
    let mut image = fs::read(file).ok()?;
    let hash = image.split_off(image.len().checked_sub(Sha256::output_size())?);
    (Sha256::digest(&image).as_slice() == hash).then_some(image)
}

/// Compiles the kernels for `architecture`, such as `sm_90`. Needs NVRTC and no device.
pub fn compile(architecture: &str) -> Result<Vec<u8>, CudaError> {
    // The bindings panic where there is no library.
    // SAFETY: loads the library, which only defines functions.
    if !unsafe { sys::is_culib_present() } {
        let (architecture, cached) = (architecture.to_owned(), Path::new("").into());
        return Err(CudaError::NoCompiler { architecture, file: FILE, cached });
    }
    let source = CString::new(source::for_gpu()).expect("sources without zeros");
    let failed = |message: String| CudaError::Compile { architecture: architecture.to_owned(), message };
    let program = Program::new(&source).map_err(|error| failed(error.to_string()))?;
    program.compile(architecture).map_err(failed)
}

fn options(architecture: &str) -> [String; 2] {
    [format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned()]
}

/// A program of the run-time compiler.
struct Program(sys::nvrtcProgram);

impl Program {
    fn new(source: &CString) -> Result<Self, NvrtcError> {
        result::create_program(source, Some(c"kernels.cu")).map(Self)
    }

    /// Its image, or the compiler's log.
    fn compile(&self, architecture: &str) -> Result<Vec<u8>, String> {
        // SAFETY: the program lives as long as this.
        unsafe { result::compile_program(self.0, &options(architecture)) }.map_err(|error| {
            // SAFETY: as above.
            let log = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
            let log: Vec<u8> = log.into_iter().map(c_char::cast_unsigned).collect();
            format!("{error}\n{}", String::from_utf8_lossy(&log).trim_end_matches('\0'))
        })?;
        self.image().map_err(|error| error.to_string())
    }

    fn image(&self) -> Result<Vec<u8>, NvrtcError> {
        let mut bytes = 0;
        // SAFETY: the program was compiled; the size is written to its own variable.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut bytes) }.result()?;
        let mut image = vec![0_u8; bytes];
        // SAFETY: the image has as many bytes as was just said.
        unsafe { sys::nvrtcGetCUBIN(self.0, image.as_mut_ptr().cast()) }.result()?;
        Ok(image)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once.
        let _: Result<(), NvrtcError> = unsafe { result::destroy_program(self.0) };
    }
}

#[cfg(all(test, feature = "cuda-emulator"))]
mod tests {
    use super::*;

    #[test]
    fn a_kept_image_comes_back_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kernels/sm_90.cubin");
        assert_eq!(kept(&file), None);
        keep(&file, b"an image").unwrap();
        assert_eq!(kept(&file).unwrap(), b"an image");
        let whole = fs::read(&file).unwrap();
        for len in 0..whole.len() {
            fs::write(&file, &whole[..len]).unwrap();
            assert_eq!(kept(&file), None, "{len} bytes");
        }
    }
}
