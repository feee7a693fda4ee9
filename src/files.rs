//! Files that are whole or not there.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use crate::error::{Error, Result};
pub use crate::tensors::write_tensors;

/// Lets `write` write to another name beside `path`, and renames that: no reader ever sees half a file, and where
/// something fails `path` is as it was.
///
/// The content is on the disk before it gets its name. A link is followed. A device or a pipe is written to
/// directly. A new file gets its mode from the umask, and one that is replaced keeps its mode. What a killed process
/// has left half written beside `path` is removed.
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
/// Those of writing and renaming, with `advice` as the way to mend them.
pub fn write_atomically<E: Display>(
    path: &Path,
    advice: &str,
    write: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> Result<()> {
    let _writing = WRITING.read().unwrap_or_else(PoisonError::into_inner);
    let written = match place(path).map_err(|e| unwritable(path, e, advice))? {
        Place::Stream => return write(path).map_err(|e| unwritable(path, e, advice)),
        Place::File(target) => Part::beside(&target).map(|part| (part, target)),
    };
    let (part, target) = written.map_err(|e| unwritable(path, e, advice))?;
    write(&part.path).map_err(|e| unwritable(path, e, advice))?;
    part.rename_to(&target)
        .map_err(|e| unwritable(path, e, advice))
}

/// Refuses a path at which [`write_atomically`] would fail now. Files that are there stay as they are.
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
/// A directory in the place of the file; a directory that is missing or that cannot be written to.
pub fn check_writable(path: &Path, advice: &str) -> Result<()> {
    let tried = match place(path) {
        Ok(Place::File(target)) => Part::beside(&target).map(drop),
        Ok(Place::Stream) => Ok(()),
        Err(e) => Err(e),
    };
    tried.map_err(|e| unwritable(path, e, advice))
}

/// Held for reading while a file is being written.
static WRITING: RwLock<()> = RwLock::new(());

/// Waits until no file is being written. As long as the result lives, no other is begun: the process can end and leaves no
/// half a file behind.
pub fn pause_writing() -> RwLockWriteGuard<'static, ()> {
    WRITING.write().unwrap_or_else(PoisonError::into_inner)
}

/// What to do about a file in a directory that cannot be written to.
pub const WRITABLE: &str = "Give a directory that is writable and has room";

fn unwritable(path: &Path, problem: impl Display, advice: &str) -> Error {
    Error::file(path, format!("cannot be written ({problem})"), advice)
}

/// What stands at a path that is to be written.
enum Place {
    /// A file or nothing, at this path after all links.
    File(PathBuf),
    /// A device or a pipe.
    Stream,
}

fn place(path: &Path) -> io::Result<Place> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() => Ok(Place::Stream),
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(Place::File(follow(path)?)),
    }
}

/// Links that lead to a file, at most.
const MOST_LINKS: usize = 40;

/// The path that a link leads to, whether a file is there or not.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = parent(&path).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links"))
}

/// The directory that a file is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// A file that is being written, beside the one that it will be. It is locked for as long as its process lives, and removed
/// unless it is renamed.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    /// A new one for `target`. Those that dead processes have left for the same target are removed.
    fn beside(target: &Path) -> io::Result<Self> {
        let (dir, prefix) = (parent(target), part_prefix(target)?);
        remove_leftovers(dir, &prefix);
        loop {
            // 64 random bits: processes on other hosts write to the same directory.
            let random = RandomState::new().hash_one(std::process::id());
            let mut name = prefix.clone();
            name.push(format!("{random:016x}"));
            let path = dir.join(name);
            let file = OpenOptions::new().write(true).create_new(true).open(&path);
            let part = match file {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                file => Self { path, file: file? },
            };
            // There are file systems without locks.
            let _ = part.file.lock();
            // Another process may have taken it for a leftover before it was locked.
            if part.path.exists() {
                return Ok(part);
            }
        }
    }

    fn rename_to(self, target: &Path) -> io::Result<()> {
        let model = fs::metadata(target).or_else(|_| self.file.metadata())?;
        fs::set_permissions(&self.path, model.permissions())?;
        // By its name: whoever wrote it may have put another file in its place.
        File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, target)?;
        sync_directory(parent(target));
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After a rename it is gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// Bytes of a name that its part's name keeps: most file systems allow 255.
const MOST_NAME: usize = 200;

fn part_prefix(target: &Path) -> io::Result<OsString> {
    let name = target.file_name();
    let name = name.ok_or_else(|| io::Error::other("it has no file name"))?;
    let mut prefix = match name.len() <= MOST_NAME {
        true => name.to_owned(),
        false => {
            let start = name.to_string_lossy();
            start.chars().take(MOST_NAME / 4).collect::<String>().into()
        }
    };
    prefix.push(".part-");
    Ok(prefix)
}

/// Removes the parts of dead processes: those that nobody has locked.
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
        if let Ok(file) = file
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Brings a directory's names to the disk, on file systems where that can be asked for.
pub(crate) fn sync_directory(dir: &Path) {
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
}

/// The path with `ending` at its end.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Whether another process has locked the file; if not, this one has now, alone or together with others that do so.
/// There are file systems without locks: there nobody has.
pub(crate) fn is_taken(file: &File, alone: bool) -> bool {
    let locked = match alone {
        true => file.try_lock(),
        false => file.try_lock_shared(),
    };
    matches!(locked, Err(TryLockError::WouldBlock))
}

/// Bytes that are read of a device or a pipe, which may never end.
const MOST_STREAMED: u64 = 1 << 30;

/// All bytes of the file at `path`.
pub(crate) fn read(path: &Path, advice: &str) -> Result<Vec<u8>> {
    read_bytes(path).map_err(|e| {
        let problem = match e.kind() {
            ErrorKind::NotFound => "is missing".into(),
            _ => format!("cannot be read ({e})"),
        };
        Error::file(path, problem, advice)
    })
}

/// All bytes of the file at `path`, of a device or a pipe at most 1 GiB.
pub(crate) fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() {
        return fs::read(path);
    }
    let mut bytes = Vec::new();
    file.take(MOST_STREAMED).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        MOST_STREAMED => Err(io::Error::other(
            "it is no file and has no end within 1 GiB",
        )),
        _ => Ok(bytes),
    }
}
