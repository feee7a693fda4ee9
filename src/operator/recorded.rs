//! [`Recorded`]: products saved in a file.
//!
//! The file starts with a line with the format's version, followed by the number of rows and the type in which products are
//! computed. Then comes a record per product: the SHA-256 of the vector, the product, and the SHA-256 of both. Records are
//! only appended; an incomplete last record, left by a killed process, is removed. A damaged record is computed again. The
//! first vector identifies the operator. Its record is written twice, so that a single damage does not make the operator
//! unknown.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::DType;
use sha2::{Digest, Sha256};

use super::{LinearOperator, check_length, checked_products};
use crate::checkpoint::unusable;
use crate::error::{Error, Result, check_finite};
use crate::files::{LockFile, is_locked};
use crate::random::{Purpose, normal};
use crate::ranks::{Ranks, agree_on_errors};
use crate::vector::{axpy, from_bytes, norm, to_bytes};

const NAME: &[u8] = b"loss-landscape products ";
const VERSION: &[u8] = b"2\n";
const HEADER: u64 = (NAME.len() + VERSION.len()) as u64 + 8 + TYPE as u64;
/// Bytes of a type's name.
const TYPE: usize = 8;
/// Bytes of a SHA-256.
const HASH: usize = 32;

/// Largest relative difference between two computations of one product: rounding in `f32` on different processors, or a
/// multiple of the operator's own rounding error.
const ROUNDING: f64 = 1e-5;
const EPSILONS: f64 = 16.0;

type Key = [u8; HASH];

/// An operator whose products are saved in a file, from which repeated products are read.
///
/// A decomposition that is called again with the same settings uses the same products. If it was interrupted or killed, it
/// therefore resumes, with the same bits; so do traces and densities. Saved products are read, only the algorithm's own work
/// is repeated. The file takes 8n bytes per product.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let file = dir.path().join("hessian.products");
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 8, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let hessian = Objective::of(&model, &data, Loss::CrossEntropy)?.hessian();
/// let few = Lanczos::default().with_max_products(5);
/// few.run(&hessian.clone().with_checkpoint(&file)?, 3)?; // ends after a few products
///
/// let recorded = hessian.clone().with_checkpoint(&file)?;
/// assert_eq!(recorded.top(3)?, hessian.top(3)?); // the same bits
/// assert!(recorded.num_read() >= 5);
/// # Ok::<(), Error>(())
/// ```
///
/// The first product in the file is that of a fixed vector, and is computed again at the start: a file of another operator,
/// such as that of the same network after more training, is refused. After the operator's [state](LinearOperator::state) has
/// changed, for example because its model was trained, products are errors.
pub struct Recorded<A> {
    operator: A,
    state: Mutex<State>,
    ranks: Option<Arc<dyn Ranks>>,
}

struct State {
    /// `None` on ranks that do not hold the file.
    log: Option<Log>,
    /// State in which the operator was identified as that of the file.
    verified: Option<u64>,
    num_read: usize,
}

impl<A: LinearOperator> Recorded<A> {
    pub(super) fn open(operator: A, path: &Path) -> Result<Self> {
        let log = Log::open(path, &operator)?;
        Ok(Self::new(operator, Some(log), None))
    }

    /// As [`LinearOperator::with_checkpoint`], for an operator that all `ranks` apply together. Rank 0 holds the file.
    ///
    /// # Errors
    /// As [`LinearOperator::with_checkpoint`]; failed communication.
    pub fn on_ranks(operator: A, path: impl AsRef<Path>, ranks: Arc<dyn Ranks>) -> Result<Self> {
        let path = path.as_ref();
        let log = match ranks.rank() {
            0 => Log::open(path, &operator).map(Some),
            _ => Ok(None),
        };
        let log = agree_on_errors(Some(ranks.as_ref()), log)?;
        Ok(Self::new(operator, log, Some(ranks)))
    }

    fn new(operator: A, log: Option<Log>, ranks: Option<Arc<dyn Ranks>>) -> Self {
        let state = State {
            log,
            verified: None,
            num_read: 0,
        };
        Self {
            operator,
            state: Mutex::new(state),
            ranks,
        }
    }

    /// Number of products that were read instead of computed.
    pub fn num_read(&self) -> usize {
        self.state().num_read
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the operator's state, which must be the one in which it was identified.
    fn unchanged_state(&self, verified: Option<u64>) -> Result<u64> {
        let now = self.operator.state().and_then(|now| match verified {
            Some(verified) if verified != now => Err(Error::invalid(
                "the model has changed since the first product in this file: restore its parameters, fix the operator's \
                 point with at(theta), or use another file",
            )),
            _ => Ok(now),
        });
        agree_on_errors(self.ranks.as_deref(), now)
    }

    /// Refuses a file of another operator, and starts a file that is empty.
    fn verify(&self, log: Option<&mut Log>) -> Result<()> {
        let probe = normal(self.dim(), Purpose::Fingerprint, 0, 0);
        let product = checked_products(&self.operator, from_ref(&probe))?;
        let verified = match log {
            Some(log) => {
                let tolerance = ROUNDING.max(EPSILONS * self.epsilon());
                log.verify(hash(&to_bytes(&probe)), &product[0], tolerance)
            }
            None => Ok(()),
        };
        agree_on_errors(self.ranks.as_deref(), verified)
    }

    /// Reads the products with these keys; `None` unless all are in the file, because products of a part of a block could
    /// differ from those of the whole block by rounding.
    fn read(&self, log: Option<&mut Log>, keys: &[Key]) -> Result<Option<Vec<Vec<f64>>>> {
        let found = match log {
            Some(log) => keys.iter().map(|key| log.read(key)).collect(),
            None => Ok(None),
        };
        let found: Option<Vec<_>> = agree_on_errors(self.ranks.as_deref(), found)?;
        let Some(ranks) = &self.ranks else {
            return Ok(found);
        };
        let mut is_found = [f64::from(u8::from(found.is_some()))];
        ranks.sum(&mut is_found)?;
        if is_found == [0.0] {
            return Ok(None);
        }
        let mut found = found.unwrap_or_else(|| vec![vec![0.0; self.dim()]; keys.len()]);
        found
            .iter_mut()
            .try_for_each(|product| ranks.sum(product))?;
        Ok(Some(found))
    }
}

impl<A: LinearOperator> LinearOperator for Recorded<A> {
    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        Ok(self.apply_block(&[v.to_vec()])?.swap_remove(0))
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        for v in vectors {
            check_length(v, self.dim())?;
            check_finite(v, "the vector")?;
        }
        let keys: Vec<Key> = vectors.iter().map(|v| hash(&to_bytes(v))).collect();
        let mut state = self.state();
        let now = self.unchanged_state(state.verified)?;
        if state.verified.is_none() {
            self.verify(state.log.as_mut())?;
            state.verified = Some(now);
        }
        if let Some(saved) = self.read(state.log.as_mut(), &keys)? {
            state.num_read += saved.len();
            return Ok(saved);
        }
        let products = checked_products(&self.operator, vectors)?;
        let saved = match &mut state.log {
            Some(log) => log.append(&keys, &products),
            None => Ok(()),
        };
        agree_on_errors(self.ranks.as_deref(), saved)?;
        Ok(products)
    }

    delegate!(operator: state, dtype, epsilon, cancellation);
}

/// The file.
struct Log {
    path: PathBuf,
    /// Locked while it is open.
    file: LockFile,
    n: usize,
    /// Offsets of each vector's records, ascending.
    offsets: HashMap<Key, Vec<u64>>,
    end: u64,
}

impl Log {
    fn open(path: &Path, operator: &impl LinearOperator) -> Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = LockFile::new(options.open(path).map_err(|e| unwritable(path, e))?);
        if is_locked(&file, true) {
            let problem = "is in use by another process or another operator";
            let advice = "Wait until it ends, or give another path";
            return Err(Error::file(path, problem, advice));
        }
        let mut log = Self {
            path: path.to_path_buf(),
            file,
            n: operator.dim(),
            offsets: HashMap::new(),
            end: HEADER,
        };
        match log
            .index(operator.dtype())
            .map_err(|e| unwritable(path, e))?
        {
            None => Ok(log),
            Some(problem) => Err(unusable(path, &problem)),
        }
    }

    /// Indexes the records, or starts a new file. Returns what is wrong with a file that cannot be used.
    fn index(&mut self, dtype: Option<DType>) -> io::Result<Option<String>> {
        let len = self.file.metadata()?.len();
        let n = (self.n as u64).to_le_bytes();
        let header = [NAME, VERSION, &n, &name(dtype)].concat();
        let mut found = vec![0; HEADER.min(len) as usize];
        self.file.read_exact(&mut found)?;
        if len < HEADER && header.starts_with(&found) {
            self.file.rewind()?;
            self.file.write_all(&header)?;
            return Ok(None);
        }
        if !found.starts_with(NAME) {
            return Ok(Some("does not hold products".into()));
        }
        if !found.starts_with(&[NAME, VERSION].concat()) {
            let problem = "holds products in the format of another version of this program";
            return Ok(Some(problem.into()));
        }
        let (found, dtype_found) = found.split_at(found.len().saturating_sub(TYPE));
        if !found.ends_with(&n) {
            return Ok(Some(format!(
                "holds products of an operator whose number of rows is not {}",
                self.n
            )));
        }
        if dtype_found != name(dtype) {
            let dtype = dtype.map_or("an unknown type", |dtype| dtype.as_str());
            return Ok(Some(format!(
                "holds products that were not computed in {dtype}"
            )));
        }
        let size = self.record();
        for _ in 0..(len - HEADER) / size {
            let mut key = [0; HASH];
            self.file.seek(SeekFrom::Start(self.end))?;
            self.file.read_exact(&mut key)?;
            self.offsets.entry(key).or_default().push(self.end);
            self.end += size;
        }
        self.file.set_len(self.end)?;
        Ok(None)
    }

    /// Bytes of a record.
    fn record(&self) -> u64 {
        (HASH + 8 * self.n + HASH) as u64
    }

    /// Reads the product with the vector of this key; `None` if it is missing or damaged.
    fn read(&mut self, key: &Key) -> Result<Option<Vec<f64>>> {
        Ok(self.read_all(key)?.pop())
    }

    /// Reads the product from each undamaged record of this vector.
    fn read_all(&mut self, key: &Key) -> Result<Vec<Vec<f64>>> {
        let mut products = Vec::new();
        for offset in self.offsets.get(key).cloned().unwrap_or_default() {
            let mut record = vec![0; self.record() as usize];
            let found = self.file.seek(SeekFrom::Start(offset));
            let found = found.and_then(|_| self.file.read_exact(&mut record));
            found.map_err(|e| unwritable(&self.path, e))?;
            let (body, sum) = record.split_at(HASH + 8 * self.n);
            if hash(body) == sum {
                products.push(from_bytes(&body[HASH..]));
            }
        }
        Ok(products)
    }

    /// Compares the product that identifies the operator with its records, and completes these to two.
    fn verify(&mut self, key: Key, product: &[f64], tolerance: f64) -> Result<()> {
        let saved = self.read_all(&key)?;
        if saved.is_empty() && self.offsets.keys().any(|other| *other != key) {
            let problem = "is damaged where it identifies its operator";
            return Err(unusable(&self.path, problem));
        }
        for mut difference in saved.iter().cloned() {
            axpy(-1.0, product, &mut difference);
            if norm(&difference) > tolerance * norm(product) {
                let problem =
                    "holds products of another operator: another model, θ, dataset or matrix";
                return Err(unusable(&self.path, problem));
            }
        }
        for _ in saved.len()..2 {
            self.append(&[key], &[product.to_vec()])?;
        }
        Ok(())
    }

    /// Appends all records with a single write.
    fn append(&mut self, keys: &[Key], products: &[Vec<f64>]) -> Result<()> {
        let mut records = Vec::new();
        for (key, product) in keys.iter().zip(products) {
            let body = [&key[..], &to_bytes(product)].concat();
            records.extend([&body[..], &hash(&body)].concat());
        }
        let written = self.file.seek(SeekFrom::Start(self.end));
        let written = written.and_then(|_| self.file.write_all(&records));
        if let Err(e) = written {
            let _ = self.file.set_len(self.end);
            return Err(unwritable(&self.path, e));
        }
        for key in keys {
            self.offsets.entry(*key).or_default().push(self.end);
            self.end += self.record();
        }
        Ok(())
    }
}

/// The name of a type, padded with zeros; all zeros for `None`.
fn name(dtype: Option<DType>) -> [u8; TYPE] {
    let name = dtype.map_or("", |dtype| dtype.as_str()).as_bytes();
    std::array::from_fn(|i| name.get(i).copied().unwrap_or(0))
}

fn hash(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

fn unwritable(path: &Path, e: io::Error) -> Error {
    Error::file(
        path,
        format!("cannot be read and written ({e})"),
        "Give a writable path with enough free space, 8n bytes per product",
    )
    .caused_by(e)
}
