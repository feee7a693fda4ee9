//! [`Mpi`]: ranks over MPI.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Source};

use super::Ranks;
use crate::error::{Error, Result};

/// Message tag of a claim, sent to rank 0: id of the task and number of its items.
const CLAIM: i32 = 1;
/// Message tag of the answer: the item, or −1.
const ITEM: i32 = 2;

/// Maximum number of values per message. MPI counts them in 32 bits.
const MAX_MESSAGE: usize = 1 << 24;

/// How long rank 0's thread sleeps between polls for claims. It must not spin, since its core computes.
const POLL_INTERVAL: Duration = Duration::from_micros(500);

/// MPI ranks: the processes started by `mpirun`.
///
/// Sums use `MPI_Allreduce`, which by the standard gives identical results on all ranks. Items are claimed from rank 0, where
/// a thread answers claims.
pub struct Mpi {
    rank: usize,
    size: usize,
    works: AtomicU64,
    claims: Arc<Mutex<Claims>>,
    ended: Arc<AtomicBool>,
    answering: Option<JoinHandle<()>>,
    _universe: Universe,
}

/// The current task and its next free item.
#[derive(Default)]
struct Claims {
    work: u64,
    next: usize,
}

impl Claims {
    fn claim(&mut self, work: u64, count: usize) -> Option<usize> {
        if work > self.work {
            *self = Self { work, next: 0 };
        }
        (work == self.work && self.next < count).then(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

impl Mpi {
    /// Initialises MPI. Dropping the value finalises it; drop it on the thread that called `start`.
    ///
    /// # Errors
    /// MPI is already initialised, or the MPI library does not support multiple threads.
    pub fn start() -> Result<Self> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Multiple)
            .ok_or_else(|| Error::invalid("MPI is already initialised: call Mpi::start once"))?;
        if threading != Threading::Multiple {
            return Err(Error::invalid(
                "this MPI library does not support multiple threads (MPI_THREAD_MULTIPLE): use one that does, such as \
                 Debian's openmpi",
            ));
        }
        let world = universe.world();
        let mut ranks = Self {
            rank: world.rank() as usize,
            size: world.size() as usize,
            works: AtomicU64::new(0),
            claims: Arc::default(),
            ended: Arc::default(),
            answering: None,
            _universe: universe,
        };
        if ranks.rank == 0 && ranks.size > 1 {
            let (claims, ended) = (ranks.claims.clone(), ranks.ended.clone());
            let thread = thread::Builder::new().spawn(move || answer(&claims, &ended));
            ranks.answering =
                Some(thread.map_err(|e| Error::invalid(format!("cannot start a thread: {e}")))?);
        }
        Ok(ranks)
    }

    /// Sets the number of threads of this rank to its share of cores: the cores it may run on, divided by the number of ranks
    /// on the same cores. `RAYON_NUM_THREADS` takes precedence. Call it before any computation.
    ///
    /// # Errors
    /// The thread pool is already running or cannot be started.
    pub fn share_cores(&self) -> Result<()> {
        // Collective, even if the variable is set on some ranks only.
        let cores = self.cores();
        if std::env::var_os("RAYON_NUM_THREADS").is_some() {
            return Ok(());
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(cores);
        let started = pool.build_global();
        started.map_err(|e| Error::invalid(format!("cannot start the threads of this rank: {e}")))
    }

    fn cores(&self) -> usize {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = status
            .lines()
            .find(|line| line.starts_with("Cpus_allowed:"));
        let mut hash = DefaultHasher::new();
        allowed.hash(&mut hash);
        let mine = hash.finish();
        let neighbours = SimpleCommunicator::world().split_shared(self.rank as i32);
        let mut all = vec![0; neighbours.size() as usize];
        neighbours.all_gather_into(&mine, &mut all[..]);
        let same = all.iter().filter(|other| **other == mine).count();
        (cores / same).max(1)
    }

    /// Ends all ranks. Call it when this rank cannot continue, since the others would wait forever.
    pub fn abort(&self) -> ! {
        SimpleCommunicator::world().abort(1)
    }
}

/// Answers claims until `ended` is set.
fn answer(claims: &Mutex<Claims>, ended: &AtomicBool) {
    let world = SimpleCommunicator::world();
    while !ended.load(Ordering::Relaxed) {
        match world.any_process().immediate_matched_probe_with_tag(CLAIM) {
            None => thread::sleep(POLL_INTERVAL),
            Some((message, status)) => {
                let mut asked = [0u64; 2];
                message.matched_receive_into(&mut asked[..]);
                let mut claims = claims.lock().unwrap_or_else(PoisonError::into_inner);
                let item = claims.claim(asked[0], asked[1] as usize);
                let item = item.map_or(-1, |item| item as i64);
                let asker = world.process_at_rank(status.source_rank());
                asker.send_with_tag(&item, ITEM);
            }
        }
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, values: &mut [f64]) -> Result<()> {
        if self.size > 1 {
            let world = SimpleCommunicator::world();
            for some in values.chunks_mut(MAX_MESSAGE) {
                let mine = some.to_vec();
                world.all_reduce_into(&mine[..], some, SystemOperation::sum());
            }
        }
        Ok(())
    }

    fn begin(&self) -> u64 {
        self.works.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn claim(&self, work: u64, count: usize) -> Result<Option<usize>> {
        if self.rank == 0 {
            let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(claims.claim(work, count));
        }
        let world = SimpleCommunicator::world();
        let leader = world.process_at_rank(0);
        leader.send_with_tag(&[work, count as u64][..], CLAIM);
        let (item, _) = leader.receive_with_tag::<i64>(ITEM);
        Ok(usize::try_from(item).ok())
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.answering.take() {
            let _ = thread.join();
        }
    }
}
