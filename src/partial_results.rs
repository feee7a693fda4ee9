//! [`compute_in_parts`]: resumable computation of many items, split across processes.
//!
//! Results are saved in files: a line with the format version, a hash of the work (its key), then a record for each finished
//! item with its index, its numbers, and a checksum of both and the key. Records are appended after each part. A partial
//! record of a killed process is cut off. Items with damaged records are computed again. Each process writes its own file and
//! reads all files; no process waits for another.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::slice::ChunksExact;

use sha2::{Digest, Sha256};

use crate::checkpoint::{Key, OTHER_WORK, unusable};
use crate::error::{Error, Result};
use crate::files::{LockFile, is_locked, parent, read_bytes, with_ending};
use crate::progress::{self, Progress};
use crate::ranks::{Kind, Ranks, Share, WorkQueue, agree_on_errors, partition};
use crate::vector::to_bytes;

/// Files of partial results at a path and next to it.
pub(crate) struct PartialResults {
    path: PathBuf,
    key: Key,
}

/// The items of a computation.
#[derive(Clone, Copy)]
pub(crate) struct Items {
    pub(crate) task: &'static str,
    pub(crate) count: usize,
    /// Numbers of an item's result.
    pub(crate) numbers: usize,
    /// Maximum number of items computed together.
    pub(crate) chunk: usize,
}

/// Results by item.
#[derive(Clone)]
struct Found {
    numbers: usize,
    values: Vec<f64>,
    is_done: Vec<bool>,
}

impl Found {
    fn none(items: Items) -> Self {
        Self {
            numbers: items.numbers,
            values: vec![0.0; items.count * items.numbers],
            is_done: vec![false; items.count],
        }
    }

    fn get(&self, item: usize) -> Option<&[f64]> {
        self.is_done[item].then(|| &self.values[item * self.numbers..][..self.numbers])
    }

    fn set(&mut self, item: usize, numbers: &[f64]) {
        self.values[item * self.numbers..][..self.numbers].copy_from_slice(numbers);
        self.is_done[item] = true;
    }
}

/// Calls `work` on the items 0 … `count` − 1 that belong to `share` and are in no file yet. Returns the results of all items, one
/// after another.
///
/// # Errors
/// [`Error::Unfinished`] if this shard is done but other shards are not.
pub(crate) fn compute_in_parts(
    items: Items,
    parts: Option<&PartialResults>,
    share: &Share,
    work: impl FnMut(Range<usize>) -> Result<Vec<f64>>,
) -> Result<Vec<f64>> {
    let Some(ranks) = share.as_ranks() else {
        let known = read_all(parts, items)?;
        let mut done = compute_missing(items, parts, share, known, work)?;
        if share.is_shard() {
            // Other shards may have progressed in the meantime.
            let theirs = read_all(parts, items)?;
            for item in 0..items.count {
                if let (None, Some(numbers)) = (done.get(item), theirs.get(item)) {
                    done.set(item, numbers);
                }
            }
        }
        return complete(items, done);
    };
    // Only the root reads, so that all ranks see the same.
    let known = match ranks.rank() {
        0 => read_all(parts, items),
        _ => Ok(Found::none(items)),
    };
    let mut known = agree_on_errors(Some(ranks), known)?;
    gather(ranks, &mut known)?;
    let done = compute_missing(items, parts, share, known.clone(), work);
    let mut done = agree_on_errors(Some(ranks), done)?;
    // Each rank contributes its own results; the root also those that it read.
    if ranks.rank() > 0 {
        for (done, known) in done.is_done.iter_mut().zip(&known.is_done) {
            *done &= !known;
        }
    }
    gather(ranks, &mut done)?;
    complete(items, done)
}

/// Computes the missing items of a share. Saves each part as soon as it is done.
fn compute_missing(
    Items {
        task,
        numbers,
        chunk,
        ..
    }: Items,
    parts: Option<&PartialResults>,
    share: &Share,
    mut done: Found,
    mut work: impl FnMut(Range<usize>) -> Result<Vec<f64>>,
) -> Result<Found> {
    let todo = pieces(&done.is_done, chunk, share);
    let queue = WorkQueue::new(share, todo.len());
    let mut file = match parts {
        Some(parts) if !todo.is_empty() => {
            let file = parts
                .append_to(share, numbers)
                .inspect_err(|_| queue.stop());
            Some((parts, file?))
        }
        _ => None,
    };
    let mut progress = Progress::start(task);
    let total = todo.iter().map(Range::len).sum();
    while let Some(turn) = queue.next()? {
        let items = todo[turn].clone();
        let found = progress::check().and_then(|()| work(items.clone()));
        let found = found.and_then(|found| {
            let saved = match &mut file {
                Some((parts, file)) => parts.append(file, items.start, numbers, &found),
                None => Ok(()),
            };
            saved.map(|()| found)
        });
        let found = found.inspect_err(|_| queue.stop())?;
        for (item, found) in items.zip(found.chunks_exact(numbers)) {
            done.set(item, found);
        }
        let before = todo[..=turn].iter().map(Range::len).sum();
        progress.part(before, total);
    }
    Ok(done)
}

/// Splits the missing items of a share into pieces of at most `chunk` items. With several ranks, pieces get smaller towards the
/// end, so that ranks finish at about the same time.
fn pieces(done: &[bool], chunk: usize, share: &Share) -> Vec<Range<usize>> {
    let mine = match share.0 {
        Kind::Shard { index, count } => partition(done.len(), index, count),
        _ => 0..done.len(),
    };
    let mut left = done[mine.clone()].iter().filter(|d| !**d).count();
    let ranks = share.as_ranks().map_or(1, |ranks| ranks.size());
    let (mut pieces, mut start) = (Vec::new(), mine.start);
    while let Some(first) = (start..mine.end).find(|i| !done[*i]) {
        let most = match ranks {
            1 => chunk,
            // Not much smaller, since common work is repeated for each piece.
            _ => left.div_ceil(2 * ranks).clamp(chunk.div_ceil(4), chunk),
        };
        let end = (first..mine.end).find(|i| done[*i] || i - first == most);
        let end = end.unwrap_or(mine.end);
        left -= end - first;
        pieces.push(first..end);
        start = end;
    }
    pieces
}

/// Combines the results of all ranks. At most one rank has each item.
fn gather(ranks: &dyn Ranks, found: &mut Found) -> Result<()> {
    // A flag for each number marks NaN, which a sum would spread.
    let flagged = (0..found.is_done.len()).flat_map(|item| {
        let numbers = found.get(item).unwrap_or_default().iter();
        let numbers = numbers.map(|x| if x.is_nan() { [0.0, 1.0] } else { [*x, 0.0] });
        let numbers = numbers
            .chain(std::iter::repeat([0.0; 2]))
            .take(found.numbers);
        [f64::from(u8::from(found.is_done[item]))]
            .into_iter()
            .chain(numbers.flatten())
    });
    let mut all: Vec<f64> = flagged.collect();
    ranks.sum(&mut all)?;
    for (item, sums) in all.chunks_exact(1 + 2 * found.numbers).enumerate() {
        let numbers = sums[1..].as_chunks::<2>().0.iter();
        let numbers = numbers.map(|[x, is_nan]| if *is_nan > 0.0 { f64::NAN } else { *x });
        if sums[0] > 0.0 {
            found.set(item, &numbers.collect::<Vec<_>>());
        }
    }
    Ok(())
}

/// The results of all items, or [`Error::Unfinished`].
fn complete(items: Items, found: Found) -> Result<Vec<f64>> {
    let done = found.is_done.iter().filter(|done| **done).count();
    match done == items.count {
        true => Ok(found.values),
        false => Err(Error::Unfinished {
            task: items.task,
            done,
            count: items.count,
        }),
    }
}

fn read_all(parts: Option<&PartialResults>, items: Items) -> Result<Found> {
    let mut found = Found::none(items);
    if let Some(parts) = parts {
        for path in partial_files(&parts.path)? {
            parts.read(&path, &mut found)?;
        }
    }
    Ok(found)
}

impl PartialResults {
    /// Files at `path` and next to it, for work with this key.
    pub(crate) fn new(path: &Path, key: Key) -> Self {
        Self {
            path: path.to_path_buf(),
            key,
        }
    }

    /// The file that a share writes.
    fn file_of(&self, share: &Share) -> PathBuf {
        with_ending(&self.path, &share.suffix())
    }

    fn read(&self, path: &Path, found: &mut Found) -> Result<()> {
        let bytes = match read_bytes(path) {
            Ok(bytes) => bytes,
            // Removed by the process that finished the work.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(unreadable(path, e)),
        };
        let records = self.records(&bytes, record_size(found.numbers));
        for record in records.map_err(|problem| unusable(path, problem))? {
            let Some((number, rest)) = self.verified(record).and_then(|r| r.split_first_chunk())
            else {
                continue;
            };
            let words = rest.as_chunks::<8>().0.iter();
            let numbers: Vec<f64> = words.map(|word| f64::from_le_bytes(*word)).collect();
            let item = u64::from_le_bytes(*number) as usize;
            if item >= found.is_done.len() {
                return Err(unusable(path, OTHER_WORK));
            }
            found.set(item, &numbers);
        }
        Ok(())
    }

    /// The records of a file, or why it cannot be used. A file without a complete record can be overwritten. If a record has
    /// our key, a different key in the header is damaged.
    fn records<'a>(
        &self,
        bytes: &'a [u8],
        size: usize,
    ) -> std::result::Result<ChunksExact<'a, u8>, &'static str> {
        let head = [NAME, VERSION].concat();
        let Some(rest) = bytes.strip_prefix(&head[..]) else {
            return match head.starts_with(bytes) {
                true => Ok([].chunks_exact(size)),
                false => Err(FOREIGN),
            };
        };
        let (key, records) = rest.split_at_checked(self.key.len()).unwrap_or_default();
        let records = records.chunks_exact(size);
        let is_ours = |record| self.verified(record).is_some();
        match records.len() == 0 || key == self.key || records.clone().any(is_ours) {
            true => Ok(records),
            false => Err(OTHER_WORK),
        }
    }

    /// A record without its checksum, if valid.
    fn verified<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        let (body, sum) = record.split_last_chunk()?;
        (*sum == self.checksum(body)).then_some(body)
    }

    fn checksum(&self, body: &[u8]) -> [u8; CHECKSUM] {
        let hash = Sha256::new().chain_update(self.key).chain_update(body);
        let hash: Key = hash.finalize().into();
        std::array::from_fn(|i| hash[i])
    }

    /// Opens and locks the file of a share for appending.
    fn append_to(&self, share: &Share, numbers: usize) -> Result<LockFile> {
        let path = self.file_of(share);
        let unwritable = |e: io::Error| unwritable(&path, e);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = LockFile::new(options.open(&path).map_err(unwritable)?);
        if is_locked(&file, true) {
            let advice = "Wait until it ends, or give another path";
            return Err(Error::file(&path, "is in use by another process", advice));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unwritable)?;
        let records = self.records(&bytes, record_size(numbers));
        let whole = records.map_err(|problem| unusable(&path, problem))?.len();
        let header = [NAME, VERSION, &self.key].concat();
        let len = (header.len() + whole * record_size(numbers)) as u64;
        let written = file.rewind().and_then(|()| file.write_all(&header));
        written
            .and_then(|()| file.set_len(len))
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(unwritable)?;
        Ok(file)
    }

    fn append(
        &self,
        file: &mut LockFile,
        first: usize,
        numbers: usize,
        found: &[f64],
    ) -> Result<()> {
        let mut records = Vec::with_capacity(found.len() / numbers * record_size(numbers));
        for (item, numbers) in (first as u64..).zip(found.chunks_exact(numbers)) {
            let start = records.len();
            records.extend(item.to_le_bytes());
            records.extend(to_bytes(numbers));
            records.extend(self.checksum(&records[start..]));
        }
        file.write_all(&records)
            .map_err(|e| unwritable(&self.path, e))
    }
}

const NAME: &[u8] = b"loss-landscape parts ";
const VERSION: &[u8] = b"1\n";

/// Size of a checksum in bytes.
const CHECKSUM: usize = 8;

/// Size in bytes of a record with this many numbers.
fn record_size(numbers: usize) -> usize {
    8 + 8 * numbers + CHECKSUM
}

fn unreadable(path: &Path, e: io::Error) -> Error {
    unusable(path, &format!("cannot be read ({e})")).caused_by(e)
}

fn unwritable(path: &Path, e: io::Error) -> Error {
    unusable(path, &format!("cannot be written ({e})")).caused_by(e)
}

const FOREIGN: &str = "is not a checkpoint of this program, or of another version";

/// The files of all shares at `path` and next to it.
pub(crate) fn partial_files(path: &Path) -> Result<Vec<PathBuf>> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let dir = parent(path);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(unreadable(path, e)),
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let ours = names.filter(|other| {
        let ending = other.as_encoded_bytes().strip_prefix(name);
        ending
            .is_some_and(|e| e.is_empty() || e.starts_with(b".shard-") || e.starts_with(b".rank-"))
    });
    let mut ours: Vec<PathBuf> = ours.map(|name| dir.join(name)).collect();
    ours.sort();
    Ok(ours)
}
