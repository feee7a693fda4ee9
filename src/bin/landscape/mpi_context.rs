//! The ranks of `mpirun`, in a build with the feature `mpi`; else this process is alone.

use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};

use loss_landscape::Error;
use loss_landscape::ranks::{Ranks, Share};

use crate::output::print_error;

static RANKS: RwLock<Option<Arc<dyn Ranks>>> = RwLock::new(None);

/// The ranks, where there are several.
pub fn ranks() -> Option<Arc<dyn Ranks>> {
    RANKS.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Whether it is for this process to speak and to write.
pub fn is_root() -> bool {
    ranks().is_none_or(|ranks| ranks.rank() == 0)
}

/// What is done here: a shard that is asked for, or what no other rank has taken.
pub fn share(shard: Option<&Share>) -> Result<Share, Error> {
    match (shard, ranks()) {
        (Some(_), Some(_)) => Err(Error::Invalid(
            "--shard is for processes that know nothing of each other, and these are ranks: leave one of both".into(),
        )),
        (Some(shard), None) => Ok(shard.clone()),
        (None, Some(ranks)) => Ok(Share::ranks(ranks)),
        (None, None) => Ok(Share::default()),
    }
}

/// Refuses a command that several ranks would only repeat.
pub fn require_single_process(command: &str) -> Result<(), Error> {
    match ranks() {
        None => Ok(()),
        Some(_) => Err(Error::Invalid(format!(
            "`{command}` has nothing to share among ranks: start it without mpirun"
        ))),
    }
}

#[cfg(not(feature = "mpi"))]
pub fn run(work: impl FnOnce() -> Result<(), Error>) -> ExitCode {
    finish(work())
}

/// `work` on every rank.
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
        // All may have failed alike, and then the first one's message will do; or one, and then its own.
        let last = matches!(error, Error::OtherRanks { .. });
        let seconds = if last { 3 } else { u64::from(mpi.rank() > 0) };
        std::thread::sleep(std::time::Duration::from_secs(seconds));
        print_error(format_args!(
            "error: {error} (rank {} of {})",
            mpi.rank(),
            mpi.size()
        ));
        // The others may be waiting for this one.
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
