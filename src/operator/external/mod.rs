//! [`External`]: a matrix whose products another process computes.

mod frames;
mod peer;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use candle_core::DType;

use self::peer::{Greeting, Peer};
use super::{LinearOperator, check_length};
use crate::error::{Error, Result, check_finite};
use crate::memory;
use crate::random::{Purpose, normal};
use crate::vector::{dot, norm};

/// A symmetric matrix whose products another process computes, for example with PyTorch or JAX on other machines.
///
/// The process is started with a command line, without a shell. It reads vectors from standard input and writes products to
/// standard output, as docs/external.md describes. `python/landscape_external.py` contains the Python side: a program calls
/// `serve(hvp, dim)` with a function that returns the product of a vector. What the process writes to standard error is not
/// shown; the last lines are part of errors.
///
/// The operator starts the process, checks on two random vectors that the matrix is symmetric, and ends the process when it is
/// dropped. After an error or an interrupt the process is killed, and the next product starts it again.
///
/// ```no_run
/// use loss_landscape::operator::External;
/// use loss_landscape::prelude::*;
///
/// let hessian = External::start("python hvp.py")?;
/// let spectrum = hessian.with_checkpoint("hessian.products")?.top(30)?;
/// println!("{:?}", spectrum.values());
/// # Ok::<(), Error>(())
/// ```
pub struct External {
    command: String,
    timeout: Duration,
    greeting: Greeting,
    /// `None` after an error, until the next product.
    peer: Mutex<Option<Peer>>,
}

/// Default time that a process may be silent.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Largest size of a block of vectors that is sent at once, in bytes.
const BLOCK_BYTES: usize = 256 << 20;

impl External {
    /// Starts a process and checks that its matrix is symmetric. `command` is a program and its arguments; quotes and
    /// backslashes have the meaning that they have in a shell. The process may be silent for 10 minutes.
    ///
    /// # Errors
    /// A command that is not valid or cannot be started; a process that ends, is silent for too long or sends anything else
    /// than a greeting and products; a matrix that is not symmetric; not enough memory; [`Error::Interrupted`].
    pub fn start(command: &str) -> Result<Self> {
        Self::start_with_timeout(command, TIMEOUT)
    }

    /// As [`start`](Self::start), with another limit of the time without a byte from the process on standard output or
    /// standard error, while a greeting or products are expected.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with_timeout(command: &str, timeout: Duration) -> Result<Self> {
        let (peer, greeting) = Peer::start(command, timeout)?;
        // A vector and its product, as numbers and as bytes.
        let bytes = 32.0 * greeting.dim as f64;
        memory::check(bytes, &format!("vectors of length {}", greeting.dim))?;
        let external = Self {
            command: command.to_owned(),
            timeout,
            greeting,
            peer: Mutex::new(Some(peer)),
        };
        external.check_symmetry()?;
        Ok(external)
    }

    /// The name that the process gives its matrix; empty if it gives none.
    pub fn name(&self) -> String {
        self.greeting.name.clone()
    }

    /// The command line of the process.
    pub fn command(&self) -> String {
        self.command.clone()
    }

    /// Kills the processes of all external operators, for code that ends this process without dropping them.
    pub fn kill_all() {
        peer::kill_all();
    }

    fn check_symmetry(&self) -> Result<()> {
        let [u, v] = [0, 1].map(|i| normal(self.dim(), Purpose::Symmetry, 0, i));
        let products = [self.apply(&u)?, self.apply(&v)?];
        let (vau, uav) = (dot(&v, &products[0]), dot(&u, &products[1]));
        // For random vectors the forms and the norms are all about ‖A‖_F.
        let size = norm(&products[0]) + norm(&products[1]);
        if (vau - uav).abs() <= self.epsilon().sqrt() * size {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the matrix of `{}` is not symmetric: for two random vectors, uᵀAv = {uav:.6e} and vᵀAu = {vau:.6e}, and \
             ‖Av‖ = {:.6e}. Make products deterministic (no dropout, no new batches); if they are less accurate than \
             {}, pass their relative error as epsilon",
            self.command,
            norm(&products[1]),
            self.greeting.dtype.candle().as_str(),
        )))
    }

    /// The process, started again if it is not running.
    fn running(&self, peer: Option<Peer>) -> Result<Peer> {
        if let Some(peer) = peer {
            return Ok(peer);
        }
        let (peer, greeting) = Peer::start(&self.command, self.timeout)?;
        match greeting == self.greeting {
            true => Ok(peer),
            false => Err(Error::invalid(format!(
                "`{}` was started again and is another matrix now: {greeting}, before {}",
                self.command, self.greeting
            ))),
        }
    }

    fn products(&self, vectors: &[&[f64]]) -> Result<Vec<Vec<f64>>> {
        for v in vectors {
            check_length(v, self.dim())?;
            check_finite(v, "the vector")?;
        }
        let at_once = (BLOCK_BYTES / (8 * self.dim())).max(1);
        let mut slot = self.peer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut peer = self.running(slot.take())?;
        let mut products = Vec::with_capacity(vectors.len());
        for some in vectors.chunks(at_once) {
            products.extend(peer.products(some, self.greeting.dtype)?);
        }
        *slot = Some(peer);
        Ok(products)
    }
}

impl LinearOperator for External {
    fn dim(&self) -> usize {
        self.greeting.dim
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        Ok(self.products(&[v])?.swap_remove(0))
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        self.products(&vectors.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn dtype(&self) -> Option<DType> {
        Some(self.greeting.dtype.candle())
    }

    fn epsilon(&self) -> f64 {
        self.greeting.epsilon()
    }
}

impl fmt::Debug for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("External")
            .field("command", &self.command)
            .field("greeting", &self.greeting)
            .finish_non_exhaustive()
    }
}
