//! [`IdxFiles`]: the IDX files of a directory, found by their names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::ADVICE;
use super::array::{IdxArray, is_gzipped};
use crate::error::{Error, Result};
use crate::files::{parent, unreadable};

/// Training or test samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::data) enum Part {
    Train,
    Test,
}

/// Images or labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::data) enum Content {
    Images,
    Labels,
}

/// The IDX files of a directory.
pub(in crate::data) struct IdxFiles {
    dir: PathBuf,
    /// The paths of each part and content under its name without `.gz` and dots: the unpacked file, then the gzipped one.
    found: BTreeMap<(Part, Content), BTreeMap<String, Vec<PathBuf>>>,
}

impl IdxFiles {
    pub(in crate::data) fn find(dir: &Path) -> Result<Self> {
        let (dir, prefix) = match (dir.is_dir(), dir.file_name()) {
            (false, Some(name)) if parent(dir).is_dir() => {
                (parent(dir), name.to_string_lossy().to_lowercase())
            }
            _ => (dir, String::new()),
        };
        let mut files = Self {
            dir: dir.to_path_buf(),
            found: BTreeMap::new(),
        };
        let entries: std::io::Result<Vec<_>> = fs::read_dir(dir).and_then(Iterator::collect);
        let mut entries = entries.map_err(|e| unreadable(dir, e, ADVICE))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for path in entries.iter().map(fs::DirEntry::path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.to_lowercase().starts_with(&prefix) {
                continue;
            }
            match path.is_dir() {
                // Archives of Kaggle unpack to a directory for each file.
                true => files.add(path.join(name.as_ref())),
                false => files.add(path),
            }
        }
        Ok(files)
    }

    fn add(&mut self, path: PathBuf) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_lowercase().replace('.', "-");
        let stem = name.strip_suffix("-gz").unwrap_or(&name).to_owned();
        let content = match (stem.contains("image"), stem.contains("label")) {
            (true, false) => Content::Images,
            (false, true) => Content::Labels,
            _ => return,
        };
        if !stem.contains("-idx") || !path.is_file() {
            return;
        }
        let part = match stem.contains("t10k") || stem.contains("test") {
            true => Part::Test,
            false => Part::Train,
        };
        let is_unpacked = stem.len() == name.len();
        let paths = self.found.entry((part, content)).or_default();
        let paths = paths.entry(stem).or_default();
        let known = paths.iter().any(|path| is_gzipped(path) != is_unpacked);
        match (known, is_unpacked) {
            (true, _) => {}
            (false, true) => paths.insert(0, path),
            (false, false) => paths.push(path),
        }
    }

    /// The paths of the only file of a part and content, unpacked before gzipped.
    pub(in crate::data) fn only(&self, part: Part, content: Content) -> Result<Option<&[PathBuf]>> {
        let Some(found) = self.found.get(&(part, content)) else {
            return Ok(None);
        };
        if found.len() > 1 {
            let names: Vec<&str> = found.keys().map(String::as_str).collect();
            let problem = format!("contains several datasets: {}", names.join(", "));
            let advice = "Keep one dataset in a directory, or add the prefix of the names to the path, such as \
                          DIR/emnist-letters";
            return Err(Error::file(&self.dir, problem, advice));
        }
        Ok(found.values().next().map(Vec::as_slice))
    }

    /// The files of images and labels of a part, each opened by `open`; `None` if there are no files of it.
    pub(super) fn pair<T>(
        &self,
        part: Part,
        open: impl Fn(&[PathBuf]) -> Result<T>,
    ) -> Result<Option<[T; 2]>> {
        let images = self.only(part, Content::Images)?;
        let labels = self.only(part, Content::Labels)?;
        match (images, labels) {
            (Some(images), Some(labels)) => Ok(Some([open(images)?, open(labels)?])),
            (None, None) => Ok(None),
            (Some(images), None) => Err(Error::file(
                &images[0],
                "has no file of labels beside it",
                ADVICE,
            )),
            (None, Some(labels)) => Err(Error::file(
                &labels[0],
                "has no file of images beside it",
                ADVICE,
            )),
        }
    }
}

/// Reads the first of an unpacked and a gzipped file.
pub(in crate::data) fn read_first(paths: &[PathBuf], advice: &str) -> Result<IdxArray> {
    IdxArray::read(&paths[0], advice).map_err(|error| {
        let gzipped = paths.get(1).map(|path| IdxArray::read(path, advice));
        match (error, gzipped) {
            (Error::File { path, problem, .. }, Some(Ok(_))) => {
                let advice = "Delete it: the next load reads its .gz instead";
                Error::file(&path, problem, advice)
            }
            (error, _) => error,
        }
    })
}
