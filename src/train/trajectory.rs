//! [`Trajectory`]: snapshots of θ during training.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result, counted};
use crate::files::write_atomically;
use crate::files::{header, read_tensors};
use crate::model::Parameters;

/// Default limit of the bytes of snapshots in memory.
const MEMORY: usize = 1 << 30;

/// Snapshots of θ and of the running statistics of batch normalisation, in the order in which they were taken and in the
/// model's type: 4 bytes per number for `f32`.
///
/// Snapshots beyond a memory limit are written to a temporary file, which is deleted with the last copy of the trajectory.
/// [`Trajectory::save`] writes all of them to a permanent file.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let start = model.parameters().to_flat()?;
/// let mut trajectory = Trajectory::every(4)?;
/// let trainer = Trainer::adam(0.01).with_batch_size(20).with_epochs(3); // 9 steps
/// trainer.fit_recorded(&model, &data, &data, &mut trajectory)?;
/// assert_eq!(trajectory.steps(), [0, 4, 8, 9]);
/// assert_eq!(trajectory.snapshot(0)?, start);
/// assert_eq!(trajectory.snapshot(3)?, model.parameters().to_flat()?);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Trajectory {
    when: When,
    memory_limit: usize,
    steps: Vec<usize>,
    /// Number of steps before this training.
    previous_steps: usize,
    /// Number of steps of this training.
    last_step: usize,
    /// `None` before the first snapshot.
    shape: Option<Shape>,
    memory: Vec<u8>,
    disk: Option<Arc<Mutex<File>>>,
}

/// Size and type of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shape {
    /// Length of θ.
    parameters: usize,
    /// Number of running statistics, which are stored after θ.
    statistics: usize,
    dtype: DType,
}

impl Shape {
    fn of_model(parameters: &Parameters) -> Self {
        Self {
            parameters: parameters.len(),
            statistics: parameters.len_with_statistics() - parameters.len(),
            dtype: parameters.dtype(),
        }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} and {} ({:?})",
            counted(self.parameters, "parameter"),
            counted(self.statistics, "running statistic"),
            self.dtype
        )
    }
}

/// The steps after which snapshots are taken.
#[derive(Clone, Debug, PartialEq)]
enum When {
    /// After every so many steps.
    Every(usize),
    /// After these steps.
    At(Vec<usize>),
}

impl Trajectory {
    /// Records a snapshot before the training, after every `steps` steps, and at the end.
    ///
    /// # Errors
    /// `steps` is 0.
    pub fn every(steps: usize) -> Result<Self> {
        if steps == 0 {
            return Err(Error::invalid(
                "the interval between snapshots is 0 steps: give at least 1",
            ));
        }
        Ok(Self::new(When::Every(steps)))
    }

    /// Records a snapshot after each of these numbers of steps (0 is before the training), and at the end.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let mut trajectory = Trajectory::at_steps([1, 2, 5]);
    /// let trainer = Trainer::adam(0.01).with_batch_size(20).with_epochs(3); // 9 steps
    /// trainer.fit_recorded(&model, &data, &data, &mut trajectory)?;
    /// assert_eq!(trajectory.steps(), [1, 2, 5, 9]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn at_steps(steps: impl Into<Vec<usize>>) -> Self {
        Self::new(When::At(steps.into()))
    }

    fn new(when: When) -> Self {
        Self {
            when,
            memory_limit: MEMORY,
            steps: Vec::new(),
            previous_steps: 0,
            last_step: 0,
            shape: None,
            memory: Vec::new(),
            disk: None,
        }
    }

    /// Sets the largest number of bytes of snapshots in memory [default: 2³⁰]; later snapshots go to a temporary file.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?; // 13 numbers of 4 bytes
    /// let mut trajectory = Trajectory::every(1)?.with_memory_limit(60);
    /// for step in 0..3 {
    ///     trajectory.push(step, model.parameters())?; // the second and third go to a file
    /// }
    /// assert_eq!(trajectory.snapshot(2)?, model.parameters().to_flat()?);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn with_memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Number of snapshots.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there are no snapshots.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Length of θ; 0 before the first snapshot.
    pub fn dim(&self) -> usize {
        self.shape.map_or(0, |shape| shape.parameters)
    }

    /// Number of training steps before each snapshot.
    pub fn steps(&self) -> &[usize] {
        &self.steps
    }

    /// Returns θ of snapshot `i`.
    ///
    /// # Errors
    /// An index out of range; a temporary file that cannot be read.
    pub fn snapshot(&self, i: usize) -> Result<Vec<f64>> {
        let mut numbers = self.numbers(i)?;
        numbers.truncate(self.dim());
        Ok(numbers)
    }

    /// Returns the running statistics of batch normalisation of snapshot `i`, in the order of [`Parameters::statistics`]; empty
    /// for a model without batch normalisation.
    ///
    /// # Errors
    /// As [`Trajectory::snapshot`].
    pub fn statistics(&self, i: usize) -> Result<Vec<f64>> {
        Ok(self.numbers(i)?.split_off(self.dim()))
    }

    /// Sets `parameters` and their running statistics to snapshot `i`.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let design = Architecture::Toy.design().normalization(Norm::Batch);
    /// let model = design
    ///     .build(&[2], 1, 0, &Device::Cpu)?
    ///     .to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
    /// let loss = objective.loss()?;
    /// let mut trajectory = Trajectory::every(3)?;
    /// let trainer = Trainer::adam(0.01).with_batch_size(20).with_epochs(2);
    /// trainer.fit_recorded(&model, &data, &data, &mut trajectory)?;
    /// trajectory.restore(0, model.parameters())?; // as before the training
    /// assert_eq!(objective.loss()?, loss);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trajectory::snapshot`]; a model of another size or type, or with running statistics that the snapshots lack. The
    /// model then stays unchanged.
    pub fn restore(&self, i: usize, parameters: &Parameters) -> Result<()> {
        let numbers = self.numbers(i)?;
        self.check_model(parameters)?;
        let (theta, statistics) = numbers.split_at(self.dim());
        parameters.set_flat(theta)?;
        parameters.set_flat_statistics(statistics)
    }

    /// Refuses a model that does not fit the snapshots.
    pub(crate) fn check_model(&self, parameters: &Parameters) -> Result<()> {
        let (model, Some(shape)) = (Shape::of_model(parameters), self.shape) else {
            return Ok(());
        };
        if model == shape {
            return Ok(());
        }
        let without_statistics = Shape {
            statistics: 0,
            ..model
        };
        Err(Error::invalid(if shape == without_statistics {
            format!(
                "the model has {} running statistics of batch normalisation and the snapshots have none: record the \
                 training again, or use an objective with_batch_statistics",
                model.statistics
            )
        } else {
            format!("expected a model of {shape}, as the snapshots, found {model}")
        }))
    }

    /// θ and the running statistics of snapshot `i`.
    fn numbers(&self, i: usize) -> Result<Vec<f64>> {
        if i >= self.len() {
            return Err(Error::invalid(format!(
                "there is no snapshot {i}: the trajectory has {}, counted from 0",
                counted(self.len(), "snapshot")
            )));
        }
        let bytes = self.bytes(i)?;
        Ok(match self.shape {
            Some(shape) if shape.dtype == DType::F64 => numbers(&bytes, f64::from_le_bytes),
            _ => numbers(&bytes, |b| f64::from(f32::from_le_bytes(b))),
        })
    }

    /// Called before a training of `steps` steps.
    pub(super) fn start(&mut self, steps: usize, parameters: &Parameters) -> Result<()> {
        self.previous_steps = self.steps.last().copied().unwrap_or(0);
        self.last_step = steps;
        match self.is_empty() {
            true => self.offer(0, parameters),
            false => Ok(()),
        }
    }

    /// Whether a snapshot is due after `step` steps of this training.
    pub(super) fn is_due(&self, step: usize) -> bool {
        let due = match &self.when {
            When::Every(n) => step.is_multiple_of(*n),
            When::At(steps) => steps.contains(&(self.previous_steps + step)),
        };
        due || step == self.last_step
    }

    /// Called after `step` steps of this training: takes a snapshot if one is due.
    pub(super) fn offer(&mut self, step: usize, parameters: &Parameters) -> Result<()> {
        if self.is_due(step) {
            self.push(self.previous_steps + step, parameters)?;
        }
        Ok(())
    }

    /// Adds a snapshot of the model after `step` steps.
    ///
    /// # Errors
    /// A model of another size or type than the previous snapshots; a full disk.
    pub fn push(&mut self, step: usize, parameters: &Parameters) -> Result<()> {
        let new = Shape::of_model(parameters);
        let shape = *self.shape.get_or_insert(new);
        if shape != new {
            return Err(Error::invalid(format!(
                "expected a model of {shape}, as in the previous snapshots, found {new}: start another trajectory"
            )));
        }
        let point = [parameters.to_flat()?, parameters.flat_statistics()?].concat();
        self.append(
            step,
            &match shape.dtype {
                DType::F64 => bytes(&point, f64::to_le_bytes),
                _ => bytes(&point, |x| (x as f32).to_le_bytes()),
            },
        )
    }

    fn append(&mut self, step: usize, bytes: &[u8]) -> Result<()> {
        if self.disk.is_none() && self.memory.len() + bytes.len() <= self.memory_limit {
            self.memory.extend(bytes);
        } else {
            self.append_to_disk(bytes)?;
        }
        self.steps.push(step);
        Ok(())
    }

    fn append_to_disk(&mut self, bytes: &[u8]) -> Result<()> {
        let at = (self.len() * bytes.len() - self.memory.len()) as u64;
        // A clone of the trajectory may have different later snapshots in the same file.
        let shared = self
            .disk
            .as_mut()
            .is_some_and(|d| Arc::get_mut(d).is_none());
        let write = |disk: &mut Option<Arc<Mutex<File>>>| -> std::io::Result<()> {
            if disk.is_none() || shared {
                let mut own = tempfile::tempfile()?;
                if let Some(old) = disk {
                    let mut old = old.lock().unwrap_or_else(PoisonError::into_inner);
                    old.seek(SeekFrom::Start(0))?;
                    std::io::copy(&mut (&mut *old).take(at), &mut own)?;
                }
                *disk = Some(Arc::new(Mutex::new(own)));
            }
            let Some(disk) = disk else { return Ok(()) };
            let mut file = disk.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)
        };
        write(&mut self.disk).map_err(|e| {
            Error::file(
                &std::env::temp_dir(),
                format!("a snapshot cannot be written to this directory ({e})"),
                "Free some space, set TMPDIR to another directory, or record fewer snapshots",
            )
            .caused_by(e)
        })
    }

    fn bytes(&self, i: usize) -> Result<Vec<u8>> {
        let size = self.snapshot_bytes();
        if let Some(row) = self.memory.get(i * size..(i + 1) * size) {
            return Ok(row.to_vec());
        }
        let mut row = vec![0; size];
        let read = |disk: &Mutex<File>, row: &mut [u8]| {
            let mut file = disk.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start((i * size - self.memory.len()) as u64))?;
            file.read_exact(row)
        };
        if let Some(disk) = &self.disk {
            read(disk, &mut row).map_err(|e| {
                let problem = format!("a snapshot in this directory cannot be read ({e})");
                Error::file(&std::env::temp_dir(), problem, "Record the training again")
                    .caused_by(e)
            })?;
        }
        Ok(row)
    }

    /// Bytes per snapshot.
    fn snapshot_bytes(&self) -> usize {
        self.shape.map_or(0, |shape| {
            (shape.parameters + shape.statistics) * shape.dtype.size_in_bytes()
        })
    }

    /// Writes the snapshots to a safetensors file with the tensors `steps`, shape `(k,)`, `snapshots`, shape `(k, n)`, and, for a
    /// model with batch normalisation, `statistics`, shape `(k, s)`.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("trajectory.safetensors");
    /// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?;
    /// let mut trajectory = Trajectory::every(1)?;
    /// trajectory.push(0, model.parameters())?;
    /// trajectory.save(&path)?;
    /// let read = Trajectory::load(&path)?;
    /// assert_eq!(
    ///     (read.steps(), read.snapshot(0)?),
    ///     (trajectory.steps(), trajectory.snapshot(0)?)
    /// );
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A trajectory without snapshots; a path that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let Some(shape) = self.shape else {
            return Err(Error::invalid("there are no snapshots to save"));
        };
        let k = self.len();
        let name = if shape.dtype == DType::F64 {
            "F64"
        } else {
            "F32"
        };
        let mut tensors = vec![
            ("steps", "I64", vec![k]),
            ("snapshots", name, vec![k, shape.parameters]),
        ];
        if shape.statistics > 0 {
            tensors.push(("statistics", name, vec![k, shape.statistics]));
        }
        let header = header(&tensors);
        let advice = "Give a path in an existing directory with free space";
        write_atomically(path.as_ref(), advice, |part| {
            let bytes = |i| self.bytes(i).map_err(io::Error::other);
            let mut file = BufWriter::new(File::create(part)?);
            file.write_all(&header)?;
            for step in &self.steps {
                file.write_all(&(*step as i64).to_le_bytes())?;
            }
            let theta = shape.parameters * shape.dtype.size_in_bytes();
            for i in 0..k {
                file.write_all(&bytes(i)?[..theta])?;
            }
            for i in 0..k {
                file.write_all(&bytes(i)?[theta..])?;
            }
            file.flush()
        })
    }

    /// Reads a file that [`Trajectory::save`] wrote.
    ///
    /// # Errors
    /// A file that is missing, damaged or of another format.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let wrong = |problem: String| {
            let advice = "Give a file written by Trajectory::save";
            Error::file(path, format!("cannot be read ({problem})"), advice)
        };
        let tensors = read_tensors(path, &Device::Cpu);
        let tensors = tensors.map_err(|e| wrong(e.to_string()).caused_by(e))?;
        let (Some(steps), Some(snapshots)) = (tensors.get("steps"), tensors.get("snapshots"))
        else {
            return Err(wrong("it lacks the tensor `steps` or `snapshots`".into()));
        };
        let statistics = tensors.get("statistics");
        let read = || -> candle_core::Result<(Vec<i64>, Shape)> {
            let (steps, dtype) = (steps.to_vec1::<i64>()?, snapshots.dtype());
            let (k, parameters) = snapshots.dims2()?;
            let (rows, count) = statistics.map_or(Ok((k, 0)), Tensor::dims2)?;
            let fits = statistics.is_none_or(|statistics| statistics.dtype() == dtype)
                && matches!(dtype, DType::F32 | DType::F64);
            if k != steps.len() || rows != k || !fits {
                candle_core::bail!(
                    "{} for {} of {dtype:?} and {rows} of statistics",
                    counted(steps.len(), "step"),
                    counted(k, "snapshot")
                );
            }
            let shape = Shape {
                parameters,
                statistics: count,
                dtype,
            };
            Ok((steps, shape))
        };
        let (steps, shape) = read().map_err(|e| wrong(Error::from(e).to_string()))?;
        let mut trajectory = Self::at_steps([]);
        trajectory.shape = Some(shape);
        for (i, step) in steps.into_iter().enumerate() {
            let row = |t: &Tensor| -> candle_core::Result<Vec<u8>> {
                let row = t.get(i)?;
                Ok(match shape.dtype {
                    DType::F64 => bytes(&row.to_vec1::<f64>()?, f64::to_le_bytes),
                    _ => bytes(&row.to_vec1::<f32>()?, f32::to_le_bytes),
                })
            };
            let mut numbers = row(snapshots)?;
            if let Some(statistics) = statistics {
                numbers.extend(row(statistics)?);
            }
            trajectory.append(step.max(0) as usize, &numbers)?;
        }
        Ok(trajectory)
    }
}

impl std::fmt::Debug for Trajectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trajectory")
            .field("snapshots", &self.len())
            .field("parameters", &self.dim())
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

fn bytes<T: Copy, const N: usize>(numbers: &[T], f: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    numbers.iter().flat_map(|x| f(*x)).collect()
}

fn numbers<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let (numbers, _) = bytes.as_chunks::<N>();
    numbers.iter().map(|b| f(*b)).collect()
}
