//! Atomic writing of files, and reading of arrays.

mod archive;
mod array_rows;
mod arrays;
mod npz;
mod npz_writer;
mod pickle;
mod pth;
mod safetensors;
mod torch_save;

use std::any::Any;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use crate::error::{Error, Result};
pub(crate) use array_rows::ArrayRows;
pub use arrays::{read_arrays, write_tensors};
pub(crate) use safetensors::{header, read_tensors};

/// Calls `write` with a temporary path in the same directory, then renames that file to `path`. Readers never see a partial
/// file, and on an error `path` is unchanged.
///
/// The content is synced to disk before the rename. Symbolic links are followed. Devices and pipes are written to directly.
/// A new file gets its mode from the umask; a replaced file keeps its mode. Temporary files of killed processes are removed.
///
/// ```
/// use loss_landscape::files::{WRITABLE, write_atomically};
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("notes.txt");
/// write_atomically(&path, WRITABLE, |part| std::fs::write(part, "first"))?;
/// let failed = write_atomically(&path, WRITABLE, |part| {
///     std::fs::write(part, "sec").map_err(|e| e.to_string())?;
///     Err("the power went".to_owned())
/// });
/// assert!(matches!(failed, Err(Error::File { .. })));
/// assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Errors of writing and renaming; the message ends with `advice`.
pub fn write_atomically<E: Display + 'static>(
    path: &Path,
    advice: &str,
    write: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> Result<()> {
    let _writing = WRITING.read().unwrap_or_else(PoisonError::into_inner);
    let written = match target(path).map_err(|e| unwritable(path, e, advice))? {
        Target::Stream => return write(path).map_err(|e| unwritable(path, e, advice)),
        Target::File(target) => TempFile::create(&target).map(|part| (part, target)),
    };
    let (part, target) = written.map_err(|e| unwritable(path, e, advice))?;
    write(&part.path).map_err(|e| unwritable(path, e, advice))?;
    part.rename_to(&target)
        .map_err(|e| unwritable(path, e, advice))
}

/// Checks that [`write_atomically`] can write to a path. Existing files are not changed.
///
/// ```
/// use std::path::Path;
///
/// use loss_landscape::files::{WRITABLE, check_writable};
///
/// assert!(check_writable(&std::env::temp_dir().join("new"), WRITABLE).is_ok());
/// assert!(check_writable(Path::new("/no/such/directory/new"), WRITABLE).is_err());
/// ```
///
/// # Errors
/// The path is a directory, or its directory is missing or not writable.
pub fn check_writable(path: &Path, advice: &str) -> Result<()> {
    let tried = match target(path) {
        Ok(Target::File(target)) => TempFile::create(&target).map(drop),
        Ok(Target::Stream) => Ok(()),
        Err(e) => Err(e),
    };
    tried.map_err(|e| unwritable(path, e, advice))
}

/// Locked for reading while a file is being written.
static WRITING: RwLock<()> = RwLock::new(());

/// Waits until no file is being written, and blocks further writes as long as the guard lives. Call it before ending the
/// process, so that no partial file is left.
pub fn pause_writing() -> RwLockWriteGuard<'static, ()> {
    WRITING.write().unwrap_or_else(PoisonError::into_inner)
}

/// Advice for a file that cannot be written.
pub const WRITABLE: &str = "Give a writable directory with free space";

fn unwritable<E: Display + 'static>(path: &Path, e: E, advice: &str) -> Error {
    let error = Error::file(path, format!("cannot be written ({e})"), advice);
    let e: Box<dyn Any> = Box::new(e);
    match e.downcast::<io::Error>() {
        Ok(e) => error.caused_by(*e),
        Err(_) => error,
    }
}

/// Target of a write.
enum Target {
    /// A regular file or nothing, at this path after following links.
    File(PathBuf),
    /// A device or a pipe.
    Stream,
}

fn target(path: &Path) -> io::Result<Target> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() => Ok(Target::Stream),
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(Target::File(follow(path)?)),
    }
}

/// Maximum number of symbolic links to follow.
const MAX_LINKS: usize = 40;

/// Follows symbolic links. The final path need not exist.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = parent(&path).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links"))
}

/// Directory of a file.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// A temporary file next to its target. It is locked while its process lives, and removed on drop unless renamed.
struct TempFile {
    path: PathBuf,
    file: LockFile,
}

impl TempFile {
    /// Creates a temporary file for `target`, and removes those that dead processes left.
    fn create(target: &Path) -> io::Result<Self> {
        let (dir, prefix) = (parent(target), part_prefix(target)?);
        remove_leftovers(dir, &prefix);
        loop {
            // 64 random bits, since processes on other hosts may write to the same directory.
            let random = RandomState::new().hash_one(std::process::id());
            let mut name = prefix.clone();
            name.push(format!("{random:016x}"));
            let path = dir.join(name);
            let file = OpenOptions::new().write(true).create_new(true).open(&path);
            let part = match file {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                file => Self {
                    path,
                    file: LockFile::new(file?),
                },
            };
            // Some file systems have no locks.
            let _ = part.file.lock();
            // Another process may have removed it as a leftover before it was locked.
            if part.path.exists() {
                return Ok(part);
            }
        }
    }

    fn rename_to(self, target: &Path) -> io::Result<()> {
        let model = fs::metadata(target).or_else(|_| self.file.metadata())?;
        fs::set_permissions(&self.path, model.permissions())?;
        // Opened by name, since `write` may have replaced the file.
        File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, target)?;
        sync_directory(parent(target));
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // Fails after a rename.
        let _ = fs::remove_file(&self.path);
    }
}

/// Maximum length of the target's name in the temporary name, in bytes. Most file systems allow 255 in all.
const MAX_NAME: usize = 200;

fn part_prefix(target: &Path) -> io::Result<OsString> {
    let name = target.file_name();
    let name = name.ok_or_else(|| io::Error::other("the path has no file name"))?;
    let mut prefix = match name.len() <= MAX_NAME {
        true => name.to_owned(),
        false => {
            let start = name.to_string_lossy();
            start.chars().take(MAX_NAME / 4).collect::<String>().into()
        }
    };
    prefix.push(".part-");
    Ok(prefix)
}

/// Removes the temporary files of dead processes: those that are not locked.
fn remove_leftovers(dir: &Path, prefix: &OsString) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let random = name.as_encoded_bytes();
        let random = random.strip_prefix(prefix.as_encoded_bytes());
        let is_part = random.is_some_and(|r| r.len() == 16 && r.iter().all(u8::is_ascii_hexdigit));
        if !is_part || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let file = OpenOptions::new().write(true).open(entry.path());
        if let Ok(file) = file.map(LockFile::new)
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Syncs a directory to disk if the file system supports it.
pub(crate) fn sync_directory(dir: &Path) {
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
}

/// Appends `ending` to the path.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// A file that may be locked, and is unlocked on drop. Closing it would not be enough: until a child process starts its
/// program, it shares the open files of this one.
pub(crate) struct LockFile(File);

impl LockFile {
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }
}

impl Deref for LockFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for LockFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Tries to lock the file, exclusively or shared. Returns whether another process holds a conflicting lock; false on file
/// systems without locks.
pub(crate) fn is_locked(file: &File, exclusive: bool) -> bool {
    let locked = match exclusive {
        true => file.try_lock(),
        false => file.try_lock_shared(),
    };
    matches!(locked, Err(TryLockError::WouldBlock))
}

/// Maximum number of bytes read from a device or pipe, which may never end.
const MAX_STREAMED: u64 = 1 << 30;

/// Reads the file at `path`.
pub(crate) fn read(path: &Path, advice: &str) -> Result<Vec<u8>> {
    read_bytes(path).map_err(|e| unreadable(path, e, advice))
}

/// The error for a file or a directory that cannot be read.
pub(crate) fn unreadable(path: &Path, e: io::Error, advice: &str) -> Error {
    let problem = match e.kind() {
        ErrorKind::NotFound => "is missing".into(),
        _ => format!("cannot be read ({e})"),
    };
    Error::file(path, problem, advice).caused_by(e)
}

/// Reads the file at `path`. At most 1 GiB from a device or pipe.
pub(crate) fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() {
        return fs::read(path);
    }
    let mut bytes = Vec::new();
    file.take(MAX_STREAMED).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        MAX_STREAMED => Err(io::Error::other(
            "not a regular file, and longer than 1 GiB",
        )),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second handle of an open file is what a child process holds until it starts its program.
    #[test]
    fn a_lock_ends_although_a_child_process_holds_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || LockFile::new(OpenOptions::new().write(true).open(file.path()).unwrap());
        let ours = open();
        assert!(!is_locked(&ours, true));
        let _inherited = ours.try_clone().unwrap();
        assert!(is_locked(&open(), true));
        drop(ours);
        assert!(!is_locked(&open(), true));
    }
}
