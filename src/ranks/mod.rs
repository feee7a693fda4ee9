//! [`Ranks`]: communication between processes. [`Share`]: the part of the work that a process does.
//!
//! | what is split | how | by |
//! | --- | --- | --- |
//! | the points of a plane | each rank takes the next free point | [`Grid::with_share`](crate::landscape::Grid::with_share) |
//! | the points of a sweep | each rank takes the next free point | [`Sweep::share`](crate::sweep::Sweep::share) |
//! | the samples of a loss | each rank has a part; sums are over all ranks | [`Objective::with_ranks`](crate::objective::Objective::with_ranks) |
//! | the vectors of a block of products | each rank multiplies a part | [`Distributed`](crate::operator::Distributed) |
//!
//! All ranks make the same calls in the same order. Results have the same bits on each rank, so all ranks take the same
//! decisions.
//!
//! Processes that do not communicate, such as the tasks of an array job, each compute a [shard](Share::shard) and exchange
//! results through files.
//!
//! With the feature `mpi` the ranks are those of `mpirun`: see `Mpi`.

#[cfg(feature = "mpi")]
mod mpi;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(feature = "mpi")]
pub use mpi::Mpi;

use crate::error::{Error, Result};

/// Communicating processes. Each is a rank.
pub trait Ranks: Send + Sync {
    /// Rank of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn size(&self) -> usize;

    /// Replaces `values` by their sums over all ranks, with the same bits on each rank. Collective: every rank calls it with
    /// the same number of values.
    ///
    /// # Errors
    /// Communication errors.
    fn sum(&self, values: &mut [f64]) -> Result<()>;

    /// Starts a task whose items are [claimed](Self::claim). Returns its id. Collective.
    fn begin(&self) -> u64;

    /// Claims the first of the items 0 … `count` − 1 of a task that no rank has claimed. Returns `None` if all are claimed.
    ///
    /// # Errors
    /// Communication errors.
    fn claim(&self, work: u64, count: usize) -> Result<Option<usize>>;
}

/// Maximum number of shards.
const MAX_SHARDS: usize = 1_000_000;

/// The part of the work that this process does. Default: all.
///
/// ```
/// use loss_landscape::ranks::Share;
///
/// let second: Share = "2/4".parse()?;
/// assert_eq!(second, Share::shard(2, 4)?);
/// assert!("5/4".parse::<Share>().is_err());
/// # Ok::<(), loss_landscape::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Share(pub(crate) Kind);

#[derive(Clone, Default)]
pub(crate) enum Kind {
    #[default]
    All,
    /// Part `index`, from 0, of `count` parts.
    Shard { index: usize, count: usize },
    /// Items that no other rank has claimed.
    Ranks(Arc<dyn Ranks>),
}

impl Share {
    /// Part `index`, from 1, of `count` parts of nearly equal size, for processes that do not communicate. The items of a
    /// shard are fixed.
    ///
    /// # Errors
    /// `index` is not from 1 to `count`, or `count` is above a million.
    pub fn shard(index: usize, count: usize) -> Result<Self> {
        if index == 0 || index > count || count > MAX_SHARDS {
            return Err(Error::invalid(format!(
                "invalid shard {index} of {count}: the index must be from 1 to the count, the count at most {MAX_SHARDS}"
            )));
        }
        Ok(Self(Kind::Shard {
            index: index - 1,
            count,
        }))
    }

    /// Items that no other of the `ranks` has claimed.
    pub fn ranks(ranks: Arc<dyn Ranks>) -> Self {
        Self(Kind::Ranks(ranks))
    }

    pub(crate) fn is_shard(&self) -> bool {
        matches!(self.0, Kind::Shard { .. })
    }

    /// Whether an item belongs to this share if items are dealt in turn. Every item belongs to all ranks.
    #[cfg(feature = "tables")] // used by sweeps
    pub(crate) fn owns(&self, item: usize) -> bool {
        match self.0 {
            Kind::Shard { index, count } => item % count == index,
            _ => true,
        }
    }

    /// Suffix for names of files that only this share writes.
    pub(crate) fn suffix(&self) -> String {
        match &self.0 {
            Kind::All => String::new(),
            Kind::Shard { index, count } => format!(".shard-{}-of-{count}", index + 1),
            Kind::Ranks(ranks) => format!(".rank-{}", ranks.rank()),
        }
    }

    /// The ranks, if the work is split across ranks.
    pub(crate) fn as_ranks(&self) -> Option<&dyn Ranks> {
        match &self.0 {
            Kind::Ranks(ranks) => Some(ranks.as_ref()),
            _ => None,
        }
    }
}

impl FromStr for Share {
    type Err = Error;

    /// Parses a shard such as `2/4`.
    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        let (index, count) = numbers.ok_or_else(|| {
            Error::invalid(format!(
                "`{text}` is not a shard: expected INDEX/COUNT, such as 2/4"
            ))
        })?;
        Self::shard(index, count)
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::All, Kind::All) => true,
            (Kind::Shard { index: i, count: n }, Kind::Shard { index: j, count: m }) => {
                (i, n) == (j, m)
            }
            (Kind::Ranks(a), Kind::Ranks(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::All => write!(f, "all"),
            Kind::Shard { index, count } => write!(f, "shard {} of {count}", index + 1),
            Kind::Ranks(ranks) => write!(f, "rank {} of {}", ranks.rank(), ranks.size()),
        }
    }
}

/// Hands out the items of a share one after another.
pub(crate) struct WorkQueue<'a> {
    count: usize,
    taken: AtomicUsize,
    claimed: Option<(&'a dyn Ranks, u64)>,
}

impl<'a> WorkQueue<'a> {
    pub(crate) fn new(share: &'a Share, count: usize) -> Self {
        Self {
            count,
            taken: AtomicUsize::new(0),
            claimed: share.as_ranks().map(|ranks| (ranks, ranks.begin())),
        }
    }

    pub(crate) fn next(&self) -> Result<Option<usize>> {
        match self.claimed {
            Some((ranks, work)) => ranks.claim(work, self.count),
            None => {
                let next = self.taken.fetch_add(1, Ordering::Relaxed);
                Ok((next < self.count).then_some(next))
            }
        }
    }

    /// Discards all remaining items after an error.
    pub(crate) fn stop(&self) {
        while let Ok(Some(_)) = self.next() {}
    }
}

/// Returns part `index` of `count` parts of the items 0 … `items` − 1. Sizes differ by at most one.
pub(crate) fn partition(items: usize, index: usize, count: usize) -> std::ops::Range<usize> {
    index * items / count..(index + 1) * items / count
}

/// Returns `found`, unless any rank failed: then the error of this rank, or [`Error::OtherRanks`]. Collective if there are
/// ranks.
pub(crate) fn agree_on_errors<T>(ranks: Option<&dyn Ranks>, found: Result<T>) -> Result<T> {
    let Some(ranks) = ranks else {
        return found;
    };
    let mut failed = [f64::from(u8::from(found.is_err()))];
    ranks.sum(&mut failed)?;
    match failed[0] as usize {
        0 => found,
        failed => Err(found.err().unwrap_or(Error::OtherRanks {
            failed,
            ranks: ranks.size(),
        })),
    }
}
