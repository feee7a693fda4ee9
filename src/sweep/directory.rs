//! [`Directory`]: the directory of a sweep, with atomic commits of points.
//!
//! The files of a point are written to `.unfinished/{ID}`, which is then renamed to `.unfinished/{ID}-whole`. From there they
//! are moved to the sweep's directory one by one, `Model-{ID}.csv` last. When a sweep starts, it finishes the moves of
//! `-whole` directories and removes other unfinished files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Sweep, checksum, manifest, point};
use crate::error::{Error, Result};
use crate::files::{LockFile, WRITABLE, is_locked, sync_directory};
use crate::progress::warn;
use crate::ranks::Share;

const UNFINISHED: &str = ".unfinished";
const WHOLE: &str = "-whole";

/// The locked directory of a sweep. Only shards of the same sweep can use it at the same time.
pub(super) struct Directory {
    path: PathBuf,
    /// The manifest and the shard's lock file. Dropping them releases the locks.
    _locks: Vec<LockFile>,
    shard: Option<PathBuf>,
}

/// How long a shard waits for others that start or end.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn model_file(dir: &Path, id: usize) -> PathBuf {
    dir.join(format!("Model-{id}.csv"))
}

pub(super) fn manifest_file(dir: &Path) -> PathBuf {
    dir.join("manifest.json")
}

impl Directory {
    /// Creates the directory, or opens the sweep in it.
    pub(super) fn open(path: &Path, manifest: &str, sweep: &Sweep) -> Result<Self> {
        let unwritable = |e| unwritable(path, e);
        fs::create_dir_all(path).map_err(unwritable)?;
        let mut directory = Self::unlocked(path);
        let file = LockFile::new(open_or_create(&manifest_file(path)).map_err(unwritable)?);
        match sweep.share.is_shard() {
            false if is_locked(&file, true) => return Err(already_running(path)),
            false => directory.begin(&file, manifest, sweep)?,
            true => directory.begin_shard(&file, manifest, sweep)?,
        }
        directory._locks.push(file);
        directory.recover(&sweep.share).map_err(unwritable)?;
        Ok(directory)
    }

    /// A directory without locks, for a rank whose root has opened the directory.
    pub(super) fn unlocked(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            _locks: Vec::new(),
            shard: None,
        }
    }

    /// Opens the directory for a shard. Shards share a lock on the manifest, and each locks its own file.
    fn begin_shard(&mut self, manifest_file: &File, manifest: &str, sweep: &Sweep) -> Result<()> {
        let began = Instant::now();
        loop {
            // The first shard locks it exclusively to write it, then shares the lock.
            if !is_locked(manifest_file, true) {
                self.begin(manifest_file, manifest, sweep)?;
            }
            if !is_locked(manifest_file, false) {
                self.begin(manifest_file, manifest, sweep)?;
                break;
            }
            if began.elapsed() > TIMEOUT {
                return Err(already_running(&self.path));
            }
            thread::sleep(Duration::from_millis(50));
        }
        let unwritable = |e| unwritable(&self.path, e);
        let unfinished = self.path.join(UNFINISHED);
        let suffix = sweep.share.suffix();
        let own = unfinished.join(suffix.trim_start_matches('.'));
        let file = loop {
            fs::create_dir_all(&unfinished).map_err(unwritable)?;
            match open_or_create(&own) {
                // Another shard has removed the directory at its end.
                Err(e) if e.kind() == io::ErrorKind::NotFound && began.elapsed() < TIMEOUT => {}
                file => break file.map_err(unwritable)?,
            }
        };
        let file = LockFile::new(file);
        if is_locked(&file, true) {
            return Err(already_running(&self.path));
        }
        let count = suffix.rsplit('-').next();
        for entry in fs::read_dir(&unfinished).map_err(unwritable)? {
            let other = entry.map_err(unwritable)?.path();
            let name = other.file_name().unwrap_or_default().to_string_lossy();
            let divides_otherwise = name.starts_with("shard-") && name.rsplit('-').next() != count;
            let is_in_use = |file| is_locked(&LockFile::new(file), true);
            if divides_otherwise && File::open(&other).is_ok_and(is_in_use) {
                let problem = format!("{name} is running there with another number of shards");
                return Err(in_use(&self.path, &problem));
            }
        }
        self._locks.push(file);
        self.shard = Some(own);
        Ok(())
    }

    /// Writes the manifest, or compares it with the existing one.
    fn begin(&self, mut lock: &File, manifest: &str, sweep: &Sweep) -> Result<()> {
        let path = &self.path;
        let unwritable = |e| unwritable(path, e);
        let mut found = String::new();
        let read = lock.rewind().and_then(|()| lock.read_to_string(&mut found));
        read.map_err(unwritable)?;
        // A sweep that was killed while writing the manifest left nothing else.
        if found.len() < manifest.len() && manifest.starts_with(&found) {
            if let Some(id) = (0..sweep.strengths.len()).find(|id| self.holds(*id)) {
                let problem = format!("contains Model-{id}.csv of a sweep without a manifest");
                return Err(Error::file(path, problem, "Give another directory"));
            }
            let written = lock.rewind();
            let written = written.and_then(|()| lock.write_all(manifest.as_bytes()));
            if let Err(e) = written.and_then(|()| lock.sync_all()) {
                let _ = lock.set_len(0);
                return Err(unwritable(e));
            }
        } else if !sweep.resume && !sweep.share.is_shard() {
            let advice = "Resume it, or give another directory";
            return Err(Error::file(path, "already contains a sweep", advice));
        } else {
            let file = manifest_file(path);
            let [there, here] = [&found, manifest].map(|text| manifest::parse(&file, text));
            if let Some(difference) = manifest::difference(&there?, &here?) {
                let problem = format!("contains a sweep with other settings: {difference}");
                let advice = "Resume it with the same settings, or give another directory";
                return Err(Error::file(path, problem, advice));
            }
        }
        Ok(())
    }

    /// Whether a point has been computed.
    pub(super) fn holds(&self, id: usize) -> bool {
        model_file(&self.path, id).exists()
    }

    /// Whether all files of a point are unchanged. Warns if some are missing or damaged.
    pub(super) fn is_whole(&self, sweep: &Sweep, id: usize) -> bool {
        let there = self.holds(id);
        let names = point::files(id, sweep.strengths[id], &sweep.endings());
        let whole = there && checksum::is_valid(&model_file(&self.path, id), &names);
        if there && !whole {
            warn(&format!(
                "files of point {} are missing or damaged: computing it again",
                id + 1
            ));
        }
        whole
    }

    /// Commits a point, whose files `write` writes to the directory it is given.
    pub(super) fn commit(&self, id: usize, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let unfinished = self.path.join(UNFINISHED);
        let (part, whole) = (
            unfinished.join(id.to_string()),
            unfinished.join(format!("{id}{WHOLE}")),
        );
        let unwritable = |e| unwritable(&self.path, e);
        fs::create_dir_all(&part).map_err(unwritable)?;
        let written = write(&part).and_then(|()| sync(&part).map_err(unwritable));
        if written.is_err() {
            // Frees space for other points.
            let _ = fs::remove_dir_all(&part);
        }
        written?;
        fs::rename(part, &whole).map_err(unwritable)?;
        sync_directory(&unfinished);
        self.move_files(&whole).map_err(unwritable)
    }

    /// Finishes or removes what an interrupted sweep left.
    fn recover(&self, share: &Share) -> io::Result<()> {
        let entries = match fs::read_dir(self.path.join(UNFINISHED)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            match name.trim_end_matches(WHOLE).parse() {
                Ok(id) if !share.owns(id) => {}
                Ok(_) if name.ends_with(WHOLE) => self.move_files(&path)?,
                Ok(_) => fs::remove_dir_all(path)?,
                Err(_) if share.is_shard() => {}
                Err(_) => fs::remove_file(path)?,
            }
        }
        Ok(())
    }

    fn move_files(&self, whole: &Path) -> io::Result<()> {
        let entries = fs::read_dir(whole)?.map(|entry| Ok(entry?.file_name()));
        let mut names = entries.collect::<io::Result<Vec<_>>>()?;
        names.sort_by_key(|name| name.to_string_lossy().starts_with("Model-"));
        for name in names {
            fs::rename(whole.join(&name), self.path.join(&name))?;
        }
        sync_directory(&self.path);
        fs::remove_dir(whole)
    }
}

impl Drop for Directory {
    /// Removes the directory of unfinished points if it is empty.
    fn drop(&mut self) {
        if let Some(own) = &self.shard {
            let _ = fs::remove_file(own);
        }
        let _ = fs::remove_dir(self.path.join(UNFINISHED));
    }
}

/// Syncs the files to disk, so that a power failure leaves no empty files.
fn sync(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_directory(dir);
    Ok(())
}

/// Opens a file for reading and writing; creates it if missing.
fn open_or_create(file: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true);
    options.truncate(false).open(file)
}

fn already_running(dir: &Path) -> Error {
    in_use(dir, "is in use by another sweep")
}

fn in_use(dir: &Path, problem: &str) -> Error {
    Error::file(
        dir,
        problem,
        "Wait until it ends, or give another directory",
    )
}

fn unwritable(path: &Path, e: io::Error) -> Error {
    Error::file(path, format!("cannot be written to ({e})"), WRITABLE).caused_by(e)
}
