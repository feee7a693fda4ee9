//! [`Ranks`]: processes that work on one thing together, and [`Share`]: who of them does what.
//!
//! | what is shared | how | by |
//! | --- | --- | --- |
//! | the points of a plane | each rank takes the next that nobody has | [`Grid::with_share`](crate::landscape::Grid::with_share) |
//! | the points of an L2 study | so too | [`Sweep::share`](crate::sweep::Sweep::share) |
//! | the samples of a loss | each rank has its own, and sums are over all | [`Objective::among`](crate::objective::Objective::among) |
//! | the vectors of a block of products | each rank multiplies some | [`Distributed`](crate::operator::Distributed) |
//!
//! All of them make the same calls in the same order. What they get is the same on each, to the bit, so that a
//! decomposition takes the same way everywhere and no rank has to lead.
//!
//! Processes that know nothing of each other, such as the tasks of an array job, take a [shard](Share::shard) each and
//! leave what they find in files beside each other.
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

/// Processes that work together, each of which is one rank.
pub trait Ranks: Send + Sync {
    /// The place of this one among them, counted from 0.
    fn rank(&self) -> usize;

    /// How many they are.
    fn size(&self) -> usize;

    /// Replaces `values` by their sums over all ranks, with the same bits on each. Every rank calls it, with as many values.
    ///
    /// # Errors
    /// What stands in the way of communication.
    fn sum(&self, values: &mut [f64]) -> Result<()>;

    /// Begins work whose items are [claimed](Self::claim), and gives it a number. Every rank calls it.
    fn begin(&self) -> u64;

    /// The first of the items 0 … `count` of that work that no rank has claimed yet; `None` if there is none.
    ///
    /// # Errors
    /// What stands in the way of communication.
    fn claim(&self, work: u64, count: usize) -> Result<Option<usize>>;
}

/// Shards that anyone could want.
const MOST: usize = 1_000_000;

/// What of a long piece of work is done here.
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
    /// The `index`th of `count` parts, from 0.
    Shard { index: usize, count: usize },
    /// Whatever nobody else does.
    Ranks(Arc<dyn Ranks>),
}

impl Share {
    /// The `index`th, from 1, of `count` parts of nearly the same size, for a process that knows nothing of the others:
    /// the items that it does are fixed.
    ///
    /// # Errors
    /// An index that is not from 1 to `count`.
    pub fn shard(index: usize, count: usize) -> Result<Self> {
        if index == 0 || index > count || count > MOST {
            return Err(Error::invalid(format!(
                "there is no shard {index} of {count}: they are counted from 1, and are {MOST} at most"
            )));
        }
        Ok(Self(Kind::Shard {
            index: index - 1,
            count,
        }))
    }

    /// What no other of the `ranks` has taken.
    pub fn ranks(ranks: Arc<dyn Ranks>) -> Self {
        Self(Kind::Ranks(ranks))
    }

    pub(crate) fn is_shard(&self) -> bool {
        matches!(self.0, Kind::Shard { .. })
    }

    /// Whether an item falls to this share where items go round; every item falls to all ranks.
    #[cfg(feature = "tables")] // used by sweeps
    pub(crate) fn owns(&self, item: usize) -> bool {
        match self.0 {
            Kind::Shard { index, count } => item % count == index,
            _ => true,
        }
    }

    /// The end of the name of what only this share writes.
    pub(crate) fn suffix(&self) -> String {
        match &self.0 {
            Kind::All => String::new(),
            Kind::Shard { index, count } => format!(".shard-{}-of-{count}", index + 1),
            Kind::Ranks(ranks) => format!(".rank-{}", ranks.rank()),
        }
    }

    pub(crate) fn among(&self) -> Option<&dyn Ranks> {
        match &self.0 {
            Kind::Ranks(ranks) => Some(ranks.as_ref()),
            _ => None,
        }
    }
}

impl FromStr for Share {
    type Err = Error;

    /// A shard, as `2/4`.
    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        let (index, count) = numbers
            .ok_or_else(|| Error::invalid(format!("`{text}` is no shard: write one as 2/4")))?;
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

/// Which of some items are next here, as those of a share.
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
            claimed: share.among().map(|ranks| (ranks, ranks.begin())),
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

    /// Takes all that is left, for nobody to do: something has failed.
    pub(crate) fn stop(&self) {
        while let Ok(Some(_)) = self.next() {}
    }
}

/// The `index`th of `count` parts of the items 0 … `items`, which differ by at most one in size.
pub(crate) fn partition(items: usize, index: usize, count: usize) -> std::ops::Range<usize> {
    index * items / count..(index + 1) * items / count
}

/// `found`, where that is no error on any rank; else the error of this one, or that there is one. Without ranks that is
/// `found`.
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
