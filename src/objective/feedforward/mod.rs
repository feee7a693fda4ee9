//! The hand-derived engine for networks of known layers, in a row or with shortcuts, on the CPU.
//!
//! Gradient by backpropagation; products with the Hessian and its relatives by forward-over-reverse
//! differentiation (Pearlmutter's R-operator, "Fast exact multiplication by the Hessian", 1994).
//! The primal pass is made once for a point and kept; tiles of samples stay in a core's cache, one
//! thread each; several directions go through together.
//!
//! | file | |
//! | --- | --- |
//! | `network` | the whole dataset through the layers, and what is kept of it |
//! | `graph` | how layers hang together: sums and concatenations of what two of them give |
//! | `build` | from a model's own list of its layers |
//! | `steps`, `training` | mini-batches, with batch normalisation, where samples depend on each other |
//! | `tiles` | samples in tiles, threads, sums in order |
//! | `plane` | losses on a plane in θ-space |
//! | `layer` | what every kind of layer knows: forward, backward, and the tangent of each |
//! | `linear`, `activation`, `conv`, `norm`, `pool` | the kinds |
//! | `grid`, `planes`, `correlate` | how convolutions lay images out, and their sums |
//! | `convolution` | those kernels by themselves, for candle's graphs |
//! | `checks` | tests that hold for every kind |
//! | `head` | the losses |
//! | `matrix`, `scalar` | products, elementary functions |

mod activation;
mod build;
#[cfg(test)]
mod checks;
mod conv;
mod convolution;
mod correlate;
mod graph;
mod grid;
mod head;
mod layer;
mod linear;
mod matrix;
mod network;
mod norm;
mod plane;
mod planes;
mod pool;
mod registers;
mod scalar;
mod steps;
mod tiles;
mod training;

pub(crate) use convolution::Convolution;
pub(crate) use head::Curvature;
pub(crate) use scalar::Scalar;
pub(crate) use steps::Steps;

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Storage, Tensor, TensorId, WithDType};

use self::build::Builder;
use self::graph::Plan;
use self::head::{Head, Targets};
use self::network::{Network, Point, Samples};
use super::{Loss, loss::Criterion};
use crate::data::{self, Dataset};
use crate::error::{Error, Result};
use crate::model::{LayerKind, Parameters};

/// A network whose derivatives are known by hand, whatever its type.
///
/// A point is θ and after it the model's running statistics, which no derivative is taken by.
pub(super) trait Engine: Any + Send + Sync {
    /// The network's outputs at a point, sample by sample.
    fn outputs(&self, point: &[f64], data: &Dataset) -> Result<Vec<f64>>;

    /// The mean loss at a point and how many samples are classified right.
    fn loss(&self, point: &[f64], data: &Dataset) -> Result<(f64, usize)>;

    /// The mean loss at a point and its gradient.
    fn gradient(&self, point: &[f64], data: &Dataset) -> Result<(f64, Vec<f64>)>;

    /// The mean losses at a point + αd₁ + βd₂ for two directions in θ-space and each of some points α, β, and how
    /// many samples are classified right; none where that is not faster than one by one.
    fn on_plane(
        &self,
        point: &[f64],
        directions: [&[f64]; 2],
        data: &Dataset,
        points: &[[f64; 2]],
    ) -> Result<Option<Vec<(f64, usize)>>>;

    /// Products with a curvature matrix at a point. The first there keeps what the next ones need, up to `budget`
    /// bytes; what is beyond is computed again for each.
    fn products(
        &self,
        point: &[f64],
        data: &Dataset,
        directions: &[Vec<f64>],
        curvature: Curvature,
        budget: usize,
    ) -> Result<Vec<Vec<f64>>>;
}

/// The engine for these layers, or none where it does not apply: a device other than the CPU, data
/// of another type than the model, shapes that do not follow one another.
pub(super) fn engine(
    layers: &[LayerKind],
    parameters: &Parameters,
    data: &Dataset,
    loss: Loss,
) -> Option<Arc<dyn Engine>> {
    let inputs = data.inputs();
    if !(inputs.device().is_cpu() && parameters.device().is_cpu()) {
        return None;
    }
    match (parameters.dtype(), inputs.dtype()) {
        (DType::F32, DType::F32) => {
            Some(Arc::new(Typed::<f32>::new(layers, parameters, data, loss)?))
        }
        (DType::F64, DType::F64) => {
            Some(Arc::new(Typed::<f64>::new(layers, parameters, data, loss)?))
        }
        _ => None,
    }
}

struct Typed<T> {
    network: Network<T>,
    /// Length of a point.
    coordinates: usize,
    /// Whether numbers are dropped at random in training.
    dropout: bool,
    /// The last point at which products were asked for, and on which data: an objective on other data has the same engine.
    point: Mutex<Option<(DataId, Arc<Point<T>>)>>,
}

/// A dataset's tensors. They never change.
type DataId = [TensorId; 2];

fn id_of(data: &Dataset) -> DataId {
    let (data::Targets::Labels(targets) | data::Targets::Values(targets)) = data.targets();
    [data.inputs().id(), targets.id()]
}

impl<T: Scalar + WithDType> Typed<T> {
    fn new(
        kinds: &[LayerKind],
        parameters: &Parameters,
        data: &Dataset,
        loss: Loss,
    ) -> Option<Self> {
        if kinds.is_empty() {
            return None;
        }
        let shape = &data.inputs().dims()[1..];
        let mut builder = Builder::new(parameters, shape)?;
        builder.add(kinds)?;
        let dropout = builder.dropout;
        let (nodes, [inputs, width]) = builder.finish()?;
        let outputs = Tensor::zeros((1, width), parameters.dtype(), &Device::Cpu).ok()?;
        Criterion::Known(loss).check(&outputs, data).ok()?;
        let head = Head { loss, width };
        Some(Self {
            network: Network {
                plan: Plan::of(&nodes),
                nodes,
                head,
                inputs,
                parameters: parameters.len(),
            },
            coordinates: parameters.len_with_statistics(),
            dropout,
            point: Mutex::new(None),
        })
    }

    /// A point, or a direction, which leaves the statistics as they are.
    fn vector(&self, vector: &[f64]) -> Vec<T> {
        let mut vector: Vec<T> = vector.iter().map(|v| T::of(*v)).collect();
        vector.resize(self.coordinates, T::ZERO);
        vector
    }

    fn point(
        &self,
        theta: Vec<T>,
        (id, samples): (DataId, Samples<T>),
        budget: usize,
    ) -> Arc<Point<T>> {
        let lock = || self.point.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = lock();
        if let Some((of, point)) = &*kept
            && *of == id
            && point.theta == theta
            && point.budget == budget
        {
            return point.clone();
        }
        // The old point goes first: two would need twice the memory.
        *kept = None;
        // The lock is free during the pass: rayon may run another call to this engine on this thread meanwhile.
        drop(kept);
        let point = Arc::new(self.network.point(theta, samples, budget));
        *lock() = Some((id, point.clone()));
        point
    }
}

impl<T: Scalar + WithDType> Engine for Typed<T> {
    fn outputs(&self, point: &[f64], data: &Dataset) -> Result<Vec<f64>> {
        let point = self.vector(point);
        let outputs = with_samples(data, |samples| self.network.outputs(&point, samples))?;
        Ok(outputs.into_iter().map(T::f64).collect())
    }

    fn loss(&self, point: &[f64], data: &Dataset) -> Result<(f64, usize)> {
        let point = self.vector(point);
        let (total, right) = with_samples(data, |samples| self.network.loss(&point, samples))?;
        Ok((total / data.len() as f64, right))
    }

    fn gradient(&self, point: &[f64], data: &Dataset) -> Result<(f64, Vec<f64>)> {
        let point = self.vector(point);
        with_samples(data, |samples| {
            let (total, _, gradient) = self.network.gradient(&point, samples);
            (total / data.len() as f64, gradient)
        })
    }

    fn on_plane(
        &self,
        point: &[f64],
        directions: [&[f64]; 2],
        data: &Dataset,
        points: &[[f64; 2]],
    ) -> Result<Option<Vec<(f64, usize)>>> {
        if !self.network.has_affine_start() {
            return Ok(None);
        }
        let vectors = [point, directions[0], directions[1]].map(|v| self.vector(v));
        let points: Vec<[T; 2]> = points.iter().map(|point| point.map(T::of)).collect();
        with_samples(data, |samples| {
            let vectors = [&vectors[0][..], &vectors[1], &vectors[2]];
            let totals = self.network.on_plane(vectors, samples, &points);
            let means = totals.into_iter();
            let n = data.len() as f64;
            Some(means.map(|(total, right)| (total / n, right)).collect())
        })
    }

    fn products(
        &self,
        point: &[f64],
        data: &Dataset,
        directions: &[Vec<f64>],
        curvature: Curvature,
        budget: usize,
    ) -> Result<Vec<Vec<f64>>> {
        let directions: Vec<Vec<T>> = directions.iter().map(|v| self.vector(v)).collect();
        let directions: Vec<&[T]> = directions.iter().map(Vec::as_slice).collect();
        with_samples(data, |samples| {
            let point = self.point(self.vector(point), (id_of(data), samples), budget);
            self.network
                .products(&point, samples, &directions, curvature)
        })
    }
}

/// `f` of a dataset's numbers.
fn with_samples<T: WithDType, R>(data: &Dataset, f: impl FnOnce(Samples<T>) -> R) -> Result<R> {
    on_host(data.inputs(), |inputs: &[T]| match data.targets() {
        data::Targets::Labels(labels) => on_host(labels, |labels: &[u32]| {
            f(Samples {
                inputs,
                targets: Targets::Labels(labels),
                count: data.len(),
            })
        }),
        data::Targets::Values(values) => on_host(values, |values: &[T]| {
            f(Samples {
                inputs,
                targets: Targets::Values(values),
                count: data.len(),
            })
        }),
    })?
}

/// `f` of a CPU tensor's numbers, in row-major order, without a copy where they lie so.
fn on_host<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
    else {
        return Err(Error::invalid("the data has left the CPU"));
    };
    Ok(f(&T::cpu_storage_as_slice(storage)?[start..end]))
}
