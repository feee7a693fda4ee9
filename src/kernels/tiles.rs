//! [`over_tiles`]: processes samples in tiles, on all threads, with sums in a fixed order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::Result;
use crate::progress;

/// How samples are split: into groups, which threads take one at a time, and groups into tiles, whose buffers stay in
/// a core's cache.
///
/// Sums are computed group by group in order, independent of the number of threads, so results are too. Groups of one
/// size keep threads busy to the end; fewer groups would not occupy many threads, and more would take longer to add
/// up. Their number grows with the number of samples, and a group of many samples is one full tile.
#[derive(Clone, Copy)]
pub(crate) struct Split {
    pub(crate) group: usize,
    pub(crate) tile: usize,
}

/// Maximum number of samples of a tile.
const TILE: usize = 320;
/// Maximum bytes of a tile at its widest boundary.
const ROWS: usize = 512 << 10;
/// Parameters are read and gradients written for every tile: a tile's widest boundary has at least this share of their bytes.
const SHARE_OF_PARAMETERS: usize = 32;
/// Number of groups of up to 5,120 samples.
const GROUPS: usize = 16;

impl Split {
    /// Splits samples whose widest row takes `row` bytes, in a network whose parameters take `parameters` bytes.
    pub(crate) fn new(samples: usize, row: usize, parameters: usize) -> Self {
        let bytes = ROWS.max(parameters / SHARE_OF_PARAMETERS);
        let groups = match samples {
            0..512 => (samples * row)
                .div_ceil(bytes)
                .clamp(1, GROUPS)
                .max(samples.div_ceil(32))
                .min(samples),
            _ => GROUPS * samples.div_ceil(GROUPS * TILE),
        };
        let group = samples.div_ceil(groups);
        let most = (bytes / row.max(1)).clamp(1, TILE);
        Self {
            group,
            tile: group.div_ceil(group.div_ceil(most)),
        }
    }

    /// Number of tiles, if all groups were full.
    pub(crate) fn count(self, samples: usize) -> usize {
        samples.div_ceil(self.group) * self.group.div_ceil(self.tile)
    }

    /// Number of a tile, less than the [`count`](Self::count).
    pub(crate) fn index(self, tile: Tile) -> usize {
        let (group, within) = (tile.start / self.group, tile.start % self.group);
        group * self.group.div_ceil(self.tile) + within / self.tile
    }
}

/// Runs `work` on every tile, on all threads, each with its own state, and each `finish` on the states, in the order of the
/// groups. `work` gets the tile's index within its group. A thread takes the tiles of a group one after another.
///
/// Several `finish` functions, such as sums over parts of a long vector, run at the same time on the states of different groups.
///
/// # Errors
/// An error of `work`, or an interrupt. The loop then ends after the current tiles.
pub(crate) fn over_tiles<S: Send, F: FnMut(&mut S) + Send>(
    samples: usize,
    split: Split,
    state: impl Fn() -> S + Sync,
    work: impl Fn(usize, Tile, &mut S) -> Result<()> + Sync,
    finish: impl IntoIterator<Item = F>,
) -> Result<()> {
    let groups = samples.div_ceil(split.group);
    let next = AtomicUsize::new(0);
    let turns = AllTurns(finish.into_iter().map(Turns::new).collect());
    let failed = Mutex::new(Ok(()));
    let run = || {
        let _abort = turns.abort_on_panic();
        let mut state = state();
        loop {
            let group = next.fetch_add(1, Ordering::Relaxed);
            if group >= groups {
                break;
            }
            let end = ((group + 1) * split.group).min(samples);
            let starts = (group * split.group..end).step_by(split.tile);
            let done = starts.enumerate().try_for_each(|(i, start)| {
                progress::check()?;
                let len = split.tile.min(end - start);
                work(i, Tile { start, len }, &mut state)
            });
            if done.is_err() {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = done;
                turns.abort();
                next.store(groups, Ordering::Relaxed);
                break;
            }
            for turns in &turns.0 {
                turns.take(group, |finish| finish(&mut state));
            }
        }
    };
    let threads = rayon::current_num_threads().min(groups);
    rayon::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| run());
        }
        run();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs threads' critical sections in the order of their numbers.
struct Turns<F> {
    /// The number whose turn it is, or `None` after a failure.
    now: Mutex<(Option<usize>, F)>,
    changed: Condvar,
}

impl<F> Turns<F> {
    fn new(f: F) -> Self {
        Self {
            now: Mutex::new((Some(0), f)),
            changed: Condvar::new(),
        }
    }

    fn take(&self, number: usize, f: impl FnOnce(&mut F)) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        while now.0.is_some_and(|turn| turn != number) {
            now = self
                .changed
                .wait(now)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if now.0.is_some() {
            f(&mut now.1);
            now.0 = Some(number + 1);
        }
        self.changed.notify_all();
    }

    /// Releases all waiting threads.
    fn abort(&self) {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).0 = None;
        self.changed.notify_all();
    }
}

/// The turns of several critical sections.
struct AllTurns<F>(Vec<Turns<F>>);

impl<F> AllTurns<F> {
    /// Releases all waiting threads.
    fn abort(&self) {
        self.0.iter().for_each(Turns::abort);
    }

    /// Releases all waiting threads if the current thread panics.
    fn abort_on_panic(&self) -> impl Drop + '_ {
        struct Abort<'a, F>(&'a AllTurns<F>);
        impl<F> Drop for Abort<'_, F> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.abort();
                }
            }
        }
        Abort(self)
    }
}

/// `len` samples from `start`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tile {
    pub(crate) start: usize,
    pub(crate) len: usize,
}
