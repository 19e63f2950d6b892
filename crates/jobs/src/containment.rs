//! Files that lie where jobs may read and write, whatever links lead there.

use std::path::{Path, PathBuf};

use url::Url;

/// The path, unless a link on its way leads out of all of these folders; then where it leads.
pub(crate) fn contained(path: &Path, folders: &[Url]) -> Result<(), PathBuf> {
    let real = resolved(path);
    let is_inside =
        |folder: &Url| folder.to_file_path().is_ok_and(|folder| real.starts_with(resolved(&folder)));
    if folders.iter().any(is_inside) { Ok(()) } else { Err(real) }
}

/// The path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            return missing.iter().rev().fold(real, |real, name| real.join(name));
        }
        missing.extend(ancestor.file_name());
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_out_of_the_folder_is_found_wherever_it_stands() {
        let outside = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "").unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        symlink(outside.path(), folder.path().join("away")).unwrap();
        symlink(outside.path().join("secret"), folder.path().join("file")).unwrap();
        symlink(folder.path().join("below"), folder.path().join("near")).unwrap();
        let folders = [Url::from_directory_path(folder.path()).unwrap()];
        let check = |name: &str| contained(&folder.path().join(name), &folders);
        for inside in ["", "new", "below/new/deeper", "near/new"] {
            check(inside).unwrap();
        }
        for out in ["file", "away", "away/secret", "away/new"] {
            assert!(check(out).unwrap_err().starts_with(outside.path().canonicalize().unwrap()), "{out}");
        }
        // The folder itself may be a link: who set it meant where it leads.
        let link = outside.path().join("link");
        symlink(folder.path(), &link).unwrap();
        contained(&link.join("new"), &[Url::from_directory_path(&link).unwrap()]).unwrap();
    }
}
