//! [`Directory`]: where a study lies. A point's files appear there all or none.
//!
//! They are written into `.unfinished/{ID}`, which is renamed to `.unfinished/{ID}-whole` when all are, and brought up
//! from there one by one, `Model-{ID}.csv` last. Whatever is in a directory `-whole` when a study begins, is brought
//! up then; what is beside it is thrown away.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::{Sweep, manifest};
use crate::error::{Error, Result};
use crate::files::WRITABLE;
use crate::ranks::Share;

const UNFINISHED: &str = ".unfinished";
const WHOLE: &str = "-whole";

/// The directory of a study. While one lives, no other is at work there; but for shards, each at its own points.
pub(super) struct Directory {
    path: PathBuf,
    /// The manifest and a shard's own file; the locks go with them, or with the process.
    _locks: Vec<File>,
    shard: Option<PathBuf>,
}

pub(super) fn model_file(dir: &Path, id: usize) -> PathBuf {
    dir.join(format!("Model-{id}.csv"))
}

pub(super) fn manifest_file(dir: &Path) -> PathBuf {
    dir.join("manifest.json")
}

impl Directory {
    /// Makes the directory, or takes up the study in it.
    pub(super) fn open(path: &Path, manifest: &str, sweep: &Sweep) -> Result<Self> {
        let unwritable = |e| unwritable(path, e);
        fs::create_dir_all(path).map_err(unwritable)?;
        let mut directory = Self::beside_another(path);
        let shard = sweep.share.is_shard();
        let file = locked(&manifest_file(path), !shard, path)?;
        directory.begin(&file, manifest, sweep)?;
        directory._locks.push(file);
        if shard {
            let unfinished = path.join(UNFINISHED);
            fs::create_dir_all(&unfinished).map_err(unwritable)?;
            let own = unfinished.join(sweep.share.suffix().trim_start_matches('.'));
            directory._locks.push(locked(&own, true, path)?);
            directory.shard = Some(own);
        }
        directory.roll_forward(&sweep.share).map_err(unwritable)?;
        Ok(directory)
    }

    /// For one of the ranks, another of which has opened the directory.
    pub(super) fn beside_another(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            _locks: Vec::new(),
            shard: None,
        }
    }

    /// Writes the manifest, or compares the one that is there.
    fn begin(&self, mut lock: &File, manifest: &str, sweep: &Sweep) -> Result<()> {
        let path = &self.path;
        let unwritable = |e| unwritable(path, e);
        let mut found = String::new();
        lock.read_to_string(&mut found).map_err(unwritable)?;
        // A sweep that was killed while it wrote the manifest has left nothing else.
        if found.len() < manifest.len() && manifest.starts_with(&found) {
            if let Some(id) = (0..sweep.strengths.len()).find(|id| self.holds(*id)) {
                let problem = format!("holds Model-{id}.csv of a sweep whose manifest is gone");
                return Err(Error::file(path, problem, "Give another directory"));
            }
            let written = lock.rewind();
            let written = written.and_then(|()| lock.write_all(manifest.as_bytes()));
            if let Err(e) = written.and_then(|()| lock.sync_all()) {
                let _ = lock.set_len(0);
                return Err(unwritable(e));
            }
        } else if !sweep.resume && !sweep.share.is_shard() {
            let cure = "Resume it, or give another directory";
            return Err(Error::file(path, "holds a sweep already", cure));
        } else {
            let file = manifest_file(path);
            let [there, here] = [&found, manifest].map(|text| manifest::parse(&file, text));
            if let Some(difference) = manifest::difference(&there?, &here?) {
                let problem = format!("holds a sweep with other settings: {difference}");
                let cure = "Resume it with its own, or give another directory";
                return Err(Error::file(path, problem, cure));
            }
        }
        Ok(())
    }

    /// Whether all files of a point are there.
    pub(super) fn holds(&self, id: usize) -> bool {
        model_file(&self.path, id).exists()
    }

    /// Lets `write` write a point's files into the directory that it is given, and brings them up.
    pub(super) fn put(&self, id: usize, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let unfinished = self.path.join(UNFINISHED);
        let (part, whole) = (
            unfinished.join(id.to_string()),
            unfinished.join(format!("{id}{WHOLE}")),
        );
        let unwritable = |e| unwritable(&self.path, e);
        fs::create_dir_all(&part).map_err(unwritable)?;
        let written = write(&part).and_then(|()| sync(&part).map_err(unwritable));
        if written.is_err() {
            // Room for others.
            let _ = fs::remove_dir_all(&part);
        }
        written?;
        fs::rename(part, &whole).map_err(unwritable)?;
        self.bring_up(&whole).map_err(unwritable)
    }

    fn roll_forward(&self, share: &Share) -> io::Result<()> {
        let entries = match fs::read_dir(self.path.join(UNFINISHED)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            match name.trim_end_matches(WHOLE).parse() {
                Ok(id) if !share.owns(id) => {}
                Ok(_) if name.ends_with(WHOLE) => self.bring_up(&path)?,
                Ok(_) => fs::remove_dir_all(path)?,
                Err(_) if share.is_shard() => {}
                Err(_) => fs::remove_file(path)?,
            }
        }
        Ok(())
    }

    fn bring_up(&self, whole: &Path) -> io::Result<()> {
        let entries = fs::read_dir(whole)?.map(|entry| Ok(entry?.file_name()));
        let mut names = entries.collect::<io::Result<Vec<_>>>()?;
        names.sort_by_key(|name| name.to_string_lossy().starts_with("Model-"));
        for name in names {
            fs::rename(whole.join(&name), self.path.join(&name))?;
        }
        fs::remove_dir(whole)
    }
}

impl Drop for Directory {
    /// Takes the place of unfinished points away, unless some could not be brought up.
    fn drop(&mut self) {
        if let Some(own) = &self.shard {
            let _ = fs::remove_file(own);
        }
        let _ = fs::remove_dir(self.path.join(UNFINISHED));
    }
}

/// Brings the files to the disk, so that not even a power cut leaves empty ones under their last names.
fn sync(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        File::open(entry?.path())?.sync_all()?;
    }
    Ok(())
}

/// A file, made if need be, that no other process has as its own; nor in use, if it is to be this one's own.
fn locked(file: &Path, own: bool, dir: &Path) -> Result<File> {
    let unwritable = |e| unwritable(dir, e);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true);
    let file = options.truncate(false).open(file).map_err(unwritable)?;
    let locked = match own {
        true => file.try_lock(),
        false => file.try_lock_shared(),
    };
    locked.map_err(|e| match e {
        TryLockError::WouldBlock => {
            let cure = "Wait for its end, or give another directory";
            Error::file(dir, "another sweep is at work there", cure)
        }
        TryLockError::Error(e) => unwritable(e),
    })?;
    Ok(file)
}

fn unwritable(path: &Path, e: io::Error) -> Error {
    Error::file(path, format!("cannot be written to ({e})"), WRITABLE)
}
