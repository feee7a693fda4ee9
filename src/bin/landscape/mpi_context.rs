//! The MPI ranks in a build with the feature `mpi`; otherwise a single process.

use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};

use loss_landscape::Error;
use loss_landscape::ranks::{Ranks, Share};

use crate::output::print_error;

static RANKS: RwLock<Option<Arc<dyn Ranks>>> = RwLock::new(None);

/// The ranks; `None` for a single process.
pub fn ranks() -> Option<Arc<dyn Ranks>> {
    RANKS.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Whether this process prints and writes results.
pub fn is_root() -> bool {
    ranks().is_none_or(|ranks| ranks.rank() == 0)
}

/// The share of work of this process: the given shard, or a share of the ranks.
pub fn share(shard: Option<&Share>) -> Result<Share, Error> {
    match (shard, ranks()) {
        (Some(_), Some(_)) => Err(Error::Invalid(
            "--shard cannot be combined with mpirun: use one of them".into(),
        )),
        (Some(shard), None) => Ok(shard.clone()),
        (None, Some(ranks)) => Ok(Share::ranks(ranks)),
        (None, None) => Ok(Share::default()),
    }
}

/// Fails under mpirun, for commands that cannot be split across ranks.
pub fn require_single_process(command: &str) -> Result<(), Error> {
    match ranks() {
        None => Ok(()),
        Some(_) => Err(Error::Invalid(format!(
            "`{command}` cannot be split across ranks: run it without mpirun"
        ))),
    }
}

#[cfg(not(feature = "mpi"))]
pub fn run(work: impl FnOnce() -> Result<(), Error>) -> ExitCode {
    finish(work())
}

/// Runs `work` on every rank.
#[cfg(feature = "mpi")]
pub fn run(work: impl FnOnce() -> Result<(), Error>) -> ExitCode {
    let mpi = match loss_landscape::ranks::Mpi::start() {
        Ok(mpi) if mpi.size() > 1 => Arc::new(mpi),
        Ok(_) => return finish(work()),
        Err(error) => return finish(Err(error)),
    };
    let set = |ranks| *RANKS.write().unwrap_or_else(PoisonError::into_inner) = ranks;
    set(Some(mpi.clone()));
    let result = mpi.share_cores().and_then(|()| work());
    if let Err(error) = result {
        // If all ranks failed, the root's message is enough. If one failed, it needs time to print its own.
        let is_elsewhere = matches!(error, Error::OtherRanks { .. });
        let seconds = if is_elsewhere {
            3
        } else {
            u64::from(mpi.rank() > 0)
        };
        std::thread::sleep(std::time::Duration::from_secs(seconds));
        print_error(format_args!(
            "error: {error} (rank {} of {})",
            mpi.rank(),
            mpi.size()
        ));
        // Other ranks may be waiting for this one.
        mpi.abort();
    }
    set(None);
    ExitCode::SUCCESS
}

fn finish(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
