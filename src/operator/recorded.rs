//! [`Recorded`]: products that are kept in a file.
//!
//! The file is a line with the format's version, the number of rows and the type in which products are computed, and then a
//! record for each product: the SHA-256 of the vector, the product, and the SHA-256 of
//! both. It only ever grows at its end, and what a killed process has left half written there is cut off. A record that is
//! damaged is computed again. The first vector is one by which the operator is recognized; its record stands there twice,
//! so that no single damage makes a file one of an unknown operator.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::DType;
use sha2::{Digest, Sha256};

use super::{LinearOperator, check_length, images};
use crate::checkpoint::unusable;
use crate::error::{Error, Result, check_finite};
use crate::files::is_taken;
use crate::random::{Purpose, normal};
use crate::ranks::{Ranks, agree_on_errors};
use crate::vector::{axpy, from_bytes, norm, to_bytes};

const NAME: &[u8] = b"loss-landscape products ";
const VERSION: &[u8] = b"2\n";
const HEADER: u64 = (NAME.len() + VERSION.len()) as u64 + 8 + TYPE as u64;
/// Bytes of the name of a type.
const TYPE: usize = 8;
const HASH: usize = 32;

/// Largest relative difference of the same product computed twice: rounding in `f32` on another processor.
const ROUNDING: f64 = 1e-5;

type Key = [u8; HASH];

/// An operator whose products are kept in a file and read from there when they are asked for again.
///
/// Decompositions ask for the same products when they are called again with the same settings. So one that was broken
/// off, by an interrupt or a kill, goes on where it was, to the same bits; and so does a trace or a density. It reads what
/// it has asked for before, and repeats only its own work besides: the file takes 8n bytes a product.
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
/// few.run(&hessian.clone().resuming(&file)?, 3)?; // broken off after some products
///
/// let recorded = hessian.clone().resuming(&file)?;
/// assert_eq!(recorded.top(3)?, hessian.top(3)?); // to the bit
/// assert!(recorded.reads() >= 5);
/// # Ok::<(), Error>(())
/// ```
///
/// The file's first product is that of a vector of its own, and is computed again at the beginning: a file of another
/// operator, say of the same network after more training, is refused. So are all further products once the operator's
/// [state](LinearOperator::state) is another, say because its model has moved.
pub struct Recorded<A> {
    operator: A,
    state: Mutex<State>,
    ranks: Option<Arc<dyn Ranks>>,
}

struct State {
    /// None where another rank keeps it.
    log: Option<Log>,
    /// The operator's state in which it was recognized as the one whose products these are.
    known: Option<u64>,
    reads: usize,
}

impl<A: LinearOperator> Recorded<A> {
    pub(super) fn open(operator: A, path: &Path) -> Result<Self> {
        let log = Log::open(path, &operator)?;
        Ok(Self::new(operator, Some(log), None))
    }

    /// The same for an operator whose products all of `ranks` ask for together: the first of them keeps the file.
    ///
    /// # Errors
    /// As [`LinearOperator::resuming`]; what stands in the way of communication.
    pub fn among(operator: A, path: impl AsRef<Path>, ranks: Arc<dyn Ranks>) -> Result<Self> {
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
            known: None,
            reads: 0,
        };
        Self {
            operator,
            state: Mutex::new(state),
            ranks,
        }
    }

    /// How many products have been read instead of computed.
    pub fn reads(&self) -> usize {
        self.state().reads
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The operator's state, which is the one in which it was recognized.
    fn unmoved(&self, known: Option<u64>) -> Result<u64> {
        let now = self.operator.state().and_then(|now| match known {
            Some(known) if known != now => Err(Error::invalid(
                "the model has moved since the products in this file began: go back to that point, give the \
                 operator a point of its own with at(theta), or begin another file",
            )),
            _ => Ok(now),
        });
        agree_on_errors(self.ranks.as_deref(), now)
    }

    /// Refuses a file of another operator; begins a file that is empty.
    fn recognize(&self, log: Option<&mut Log>) -> Result<()> {
        let probe = normal(self.dim(), Purpose::Fingerprint, 0, 0);
        let product = images(&self.operator, from_ref(&probe))?;
        let recognized = match log {
            Some(log) => log.recognize(hash(&to_bytes(&probe)), &product[0]),
            None => Ok(()),
        };
        agree_on_errors(self.ranks.as_deref(), recognized)
    }

    /// The products with these keys, if there are all of them. All or none: some of a block could differ by rounding
    /// from those of the whole.
    fn known(&self, log: Option<&mut Log>, keys: &[Key]) -> Result<Option<Vec<Vec<f64>>>> {
        let known = match log {
            Some(log) => keys.iter().map(|key| log.read(key)).collect(),
            None => Ok(None),
        };
        let known: Option<Vec<_>> = agree_on_errors(self.ranks.as_deref(), known)?;
        let Some(ranks) = &self.ranks else {
            return Ok(known);
        };
        let mut there = [f64::from(u8::from(known.is_some()))];
        ranks.sum(&mut there)?;
        if there == [0.0] {
            return Ok(None);
        }
        let mut known = known.unwrap_or_else(|| vec![vec![0.0; self.dim()]; keys.len()]);
        known
            .iter_mut()
            .try_for_each(|product| ranks.sum(product))?;
        Ok(Some(known))
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
        let now = self.unmoved(state.known)?;
        if state.known.is_none() {
            self.recognize(state.log.as_mut())?;
            state.known = Some(now);
        }
        if let Some(known) = self.known(state.log.as_mut(), &keys)? {
            state.reads += known.len();
            return Ok(known);
        }
        let products = images(&self.operator, vectors)?;
        let kept = match &mut state.log {
            Some(log) => log.append(&keys, &products),
            None => Ok(()),
        };
        agree_on_errors(self.ranks.as_deref(), kept)?;
        Ok(products)
    }

    delegate!(operator: state, dtype, cancelled);
}

struct Log {
    path: PathBuf,
    /// Locked for as long as it is open.
    file: File,
    n: usize,
    /// Where the records of each vector are, in the order of the file.
    places: HashMap<Key, Vec<u64>>,
    end: u64,
}

impl Log {
    fn open(path: &Path, operator: &impl LinearOperator) -> Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(|e| unwritable(path, &e))?;
        if is_taken(&file, true) {
            let problem = "is in use by another process or another operator";
            let advice = "Wait for its end, or give another path";
            return Err(Error::file(path, problem, advice));
        }
        let mut log = Self {
            path: path.to_path_buf(),
            file,
            n: operator.dim(),
            places: HashMap::new(),
            end: HEADER,
        };
        match log
            .index(operator.dtype())
            .map_err(|e| unwritable(path, &e))?
        {
            None => Ok(log),
            Some(problem) => Err(unusable(path, &problem)),
        }
    }

    /// Finds the records, or makes a new file; says what else the file is.
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
            return Ok(Some("holds something else than products".into()));
        }
        if !found.starts_with(&[NAME, VERSION].concat()) {
            let problem = "holds products in the format of another version of this program";
            return Ok(Some(problem.into()));
        }
        let (found, dtype_found) = found.split_at(found.len().saturating_sub(TYPE));
        if !found.ends_with(&n) {
            return Ok(Some(format!(
                "holds products of an operator with another number of rows than {}",
                self.n
            )));
        }
        if dtype_found != name(dtype) {
            let dtype = dtype.map_or("a type that is not known", |dtype| dtype.as_str());
            return Ok(Some(format!(
                "holds products that are not computed in {dtype}"
            )));
        }
        let size = self.record();
        for _ in 0..(len - HEADER) / size {
            let mut key = [0; HASH];
            self.file.seek(SeekFrom::Start(self.end))?;
            self.file.read_exact(&mut key)?;
            self.places.entry(key).or_default().push(self.end);
            self.end += size;
        }
        self.file.set_len(self.end)?;
        Ok(None)
    }

    /// Bytes of a record.
    fn record(&self) -> u64 {
        (HASH + 8 * self.n + HASH) as u64
    }

    /// The product with the vector of this key, if it is there and whole.
    fn read(&mut self, key: &Key) -> Result<Option<Vec<f64>>> {
        Ok(self.read_all(key)?.pop())
    }

    /// The product from each whole record of this vector.
    fn read_all(&mut self, key: &Key) -> Result<Vec<Vec<f64>>> {
        let mut products = Vec::new();
        for place in self.places.get(key).cloned().unwrap_or_default() {
            let mut record = vec![0; self.record() as usize];
            let found = self.file.seek(SeekFrom::Start(place));
            let found = found.and_then(|_| self.file.read_exact(&mut record));
            found.map_err(|e| unwritable(&self.path, &e))?;
            let (body, sum) = record.split_at(HASH + 8 * self.n);
            if hash(body) == sum {
                products.push(from_bytes(&body[HASH..]));
            }
        }
        Ok(products)
    }

    /// Compares the product by which the operator is recognized with the file's, and writes it where there are not two.
    fn recognize(&mut self, key: Key, product: &[f64]) -> Result<()> {
        let kept = self.read_all(&key)?;
        if kept.is_empty() && self.places.keys().any(|other| *other != key) {
            let problem = "is damaged where it says which operator its products are of";
            return Err(unusable(&self.path, problem));
        }
        for mut difference in kept.iter().cloned() {
            axpy(-1.0, product, &mut difference);
            if norm(&difference) > ROUNDING * norm(product) {
                let problem =
                    "holds products of another operator: another network, θ, dataset or matrix";
                return Err(unusable(&self.path, problem));
            }
        }
        for _ in kept.len()..2 {
            self.append(&[key], &[product.to_vec()])?;
        }
        Ok(())
    }

    /// All of them in one go.
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
            return Err(unwritable(&self.path, &e));
        }
        for key in keys {
            self.places.entry(*key).or_default().push(self.end);
            self.end += self.record();
        }
        Ok(())
    }
}

/// The name of a type, of none if it is not known.
fn name(dtype: Option<DType>) -> [u8; TYPE] {
    let name = dtype.map_or("", |dtype| dtype.as_str()).as_bytes();
    std::array::from_fn(|i| name.get(i).copied().unwrap_or(0))
}

fn hash(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

fn unwritable(path: &Path, e: &io::Error) -> Error {
    Error::file(
        path,
        format!("cannot be read and written ({e})"),
        "Give a path that is writable and has room, 8n bytes a product",
    )
}
