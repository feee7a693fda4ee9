//! The hand-derived engine: loss, gradient and products for a graph of layers, on the CPU.
//!
//! The gradient is computed by backpropagation, products with the Hessian and its relatives by forward-over-reverse differentiation
//! (Pearlmutter's R-operator, "Fast exact multiplication by the Hessian", 1994). The forward pass and the first backward pass are
//! cached for a point. Tiles of samples stay in a core's cache, one thread each; several directions go through together.
//!
//! | file | contents |
//! | --- | --- |
//! | `network` | passes over the whole dataset |
//! | `compressed_inputs` | inputs that are mostly zeros, for the first layer |
//! | `plan` | the order in which derivatives with respect to the boundaries are added up |
//! | `products` | products of directions with curvature matrices |
//! | `curvature_factors` | Kronecker factors of the Gauss–Newton matrix |
//! | `sample_derivatives` | derivatives of the samples' losses along a direction |
//! | `layer_visitor` | each layer's inputs and output gradients, tile by tile |
//! | `plane_losses` | losses on a plane in θ-space |
//! | `batch_pass`, `gradient_steps` | mini-batches, with batch normalisation, where samples depend on each other |

mod batch_pass;
mod compressed_inputs;
mod curvature_factors;
mod gradient_steps;
mod graph_reason;
mod layer_visitor;
mod network;
mod plan;
mod plane_losses;
mod products;
mod sample_derivatives;

pub(crate) use curvature_factors::{CurvatureFactors, FactorBlock, RootColumns};
pub(crate) use gradient_steps::{BatchScore, GradientSteps};
pub use graph_reason::GraphReason;
pub use layer_visitor::LayerTile;

use std::any::Any;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Storage, Tensor, TensorId, WithDType};
use rayon::prelude::*;

use self::compressed_inputs::{CompressedInputs, are_sparse};
use self::network::{CachedPoint, Network, Samples};
use self::plan::Plan;
use self::plane_losses::PlaneStart;
use crate::data::{Dataset, Targets};
use crate::error::{Error, Result};
use crate::kernels::Scalar;
use crate::layers::graph::GraphBuilder;
use crate::layers::{LayerKind, Shape};
use crate::losses::{Curvature, MeanLoss, TargetSlice};
use crate::parameters::Parameters;
use crate::pool::Pool;
use crate::vector::{PIECE, embed};

/// A network whose derivatives are computed by hand-derived rules, whatever its dtype.
///
/// A point is θ followed by the model's running statistics, which are constants in derivatives.
pub(crate) trait HandDerived: Any + Send + Sync {
    /// The network's outputs at a point, sample by sample.
    fn outputs(&self, point: &[f64], data: &Dataset) -> Result<Vec<f64>>;

    /// The mean loss at a point and the number of correct labels.
    fn loss(&self, point: &[f64], data: &Dataset) -> Result<(f64, usize)>;

    /// The mean loss at a point and its gradient.
    fn gradient(&self, point: &[f64], data: &Dataset) -> Result<(f64, Vec<f64>)>;

    /// The mean losses at a point + αd₁ + βd₂ for two directions in θ-space and several points (α, β), and the
    /// numbers of correct labels; `None` if that is not faster than evaluating each point. If d₂ is empty, the points are on a line.
    /// The first call for a plane caches what later ones need, up to `budget` bytes.
    fn on_plane(
        &self,
        point: &[f64],
        directions: [&[f64]; 2],
        data: &Dataset,
        points: &[[f64; 2]],
        budget: usize,
    ) -> Result<Option<Vec<(f64, usize)>>>;

    /// Products with a curvature matrix at a point. The first call caches what later ones need, up to `budget` bytes;
    /// the rest is recomputed for each product.
    ///
    /// With `block`, the products of the diagonal block of these ranges of θ: directions and products have its size.
    fn products(
        &self,
        point: &[f64],
        data: &Dataset,
        directions: &[&[f64]],
        curvature: Curvature,
        block: Option<&[Range<usize>]>,
        budget: usize,
    ) -> Result<Vec<Vec<f64>>>;

    /// Returns (1/n) Σ Jᵢᵀuᵢ at a point, with the Jacobian Jᵢ of each sample's outputs and `weights` uᵢ, one per output.
    fn pullback(&self, point: &[f64], data: &Dataset, weights: &[f64]) -> Result<Vec<f64>>;

    /// Calls `visitor` with each layer's inputs and output gradients, tile by tile, in order.
    fn visit(
        &self,
        point: &[f64],
        data: &Dataset,
        visitor: &mut (dyn FnMut(LayerTile) + Send),
    ) -> Result<()>;

    /// Kronecker factors of the Gauss–Newton matrix at a point.
    fn curvature_factors(
        &self,
        point: &[f64],
        data: &Dataset,
        columns: RootColumns,
    ) -> Result<CurvatureFactors>;

    /// The diagonal of each factored block of the matrix in a basis.
    fn diagonal_in_bases(
        &self,
        point: &[f64],
        data: &Dataset,
        columns: RootColumns,
        bases: &[[Vec<f64>; 2]],
    ) -> Result<Vec<Vec<f64>>>;

    /// The derivative of each sample's loss along a direction in θ-space.
    fn sample_derivatives(
        &self,
        point: &[f64],
        data: &Dataset,
        direction: &[f64],
    ) -> Result<Vec<f64>>;

    /// An upper bound on the norm of each sample's gradient: the norm itself, unless layers share parameters.
    fn sample_gradient_norms(&self, point: &[f64], data: &Dataset) -> Result<Vec<f64>>;
}

/// Hand-derived rules for these layers.
///
/// # Errors
/// The reason why there are none.
pub(crate) fn hand_derived(
    layers: &[LayerKind],
    parameters: &Parameters,
    data: &Dataset,
    loss: &MeanLoss,
) -> Result<Arc<dyn HandDerived>, GraphReason> {
    let inputs = data.inputs();
    if !(inputs.device().is_cpu() && parameters.device().is_cpu()) {
        return Err(GraphReason::Device);
    }
    match (parameters.dtype(), inputs.dtype()) {
        (DType::F32, DType::F32 | DType::U32) => {
            Ok(Arc::new(Typed::<f32>::new(layers, parameters, data, loss)?))
        }
        (DType::F64, DType::F64 | DType::U32) => {
            Ok(Arc::new(Typed::<f64>::new(layers, parameters, data, loss)?))
        }
        (parameters, inputs) => Err(GraphReason::Dtype {
            parameters: parameters.as_str().into(),
            inputs: inputs.as_str().into(),
        }),
    }
}

struct Typed<T> {
    network: Network<T>,
    /// Length of a point.
    point_len: usize,
    has_dropout: bool,
    /// The point and data of the last products: objectives on other data share the engine.
    cached: Mutex<Option<(DataId, Arc<CachedPoint<T>>)>>,
    /// The plane and data of the last losses on a plane.
    plane: Mutex<Option<(DataId, Arc<PlaneStart<T>>)>>,
    /// The last tokens and their values in the network's dtype.
    converted: Mutex<Option<(TensorId, Tensor)>>,
    /// Converted directions.
    vectors: Pool<Vec<T>>,
    /// The last inputs of a pass over a dataset, if the first layer reads them compressed.
    compressed: Mutex<Option<(TensorId, Arc<CompressedInputs<T>>)>>,
}

/// Identifies a dataset by its tensors, which never change.
type DataId = [TensorId; 2];

fn id_of(data: &Dataset) -> DataId {
    [data.inputs().id(), data.targets().tensor().id()]
}

impl<T: Scalar + WithDType> Typed<T> {
    fn new(
        layers: &[LayerKind],
        parameters: &Parameters,
        data: &Dataset,
        loss: &MeanLoss,
    ) -> Result<Self, GraphReason> {
        let input = Shape::new(&data.inputs().dims()[1..]);
        let sparse = data.inputs().dtype() == T::DTYPE
            && on_host(data.inputs(), |inputs| are_sparse::<T>(inputs, data.len()))
                .is_ok_and(|sparse| sparse);
        let graph = GraphBuilder::build(layers, parameters, input, sparse)?;
        let rules = loss.rules(graph.output.dims(), data);
        let loss = rules.map_err(|e| GraphReason::Outputs(e.to_string()))?;
        if graph.nodes.is_empty() {
            return Err(GraphReason::NoRules);
        }
        Ok(Self {
            network: Network {
                plan: Plan::new(&graph.nodes),
                inputs: graph.input.len(),
                nodes: graph.nodes,
                loss,
                num_params: parameters.len(),
                num_tokens: graph.num_tokens,
                params: parameters.blocks(),
                scratch: Pool::default(),
                gradients: Pool::default(),
            },
            point_len: parameters.len_with_statistics(),
            has_dropout: graph.has_dropout,
            cached: Mutex::new(None),
            plane: Mutex::new(None),
            converted: Mutex::new(None),
            vectors: Pool::default(),
            compressed: Mutex::new(None),
        })
    }

    /// Converts a point, or a direction, along which the statistics do not change.
    fn vector(&self, vector: &[f64]) -> Vec<T> {
        let mut converted = Vec::new();
        self.convert(vector, &mut converted);
        converted
    }

    fn convert(&self, vector: &[f64], converted: &mut Vec<T>) {
        converted.clear();
        let entries = vector.par_iter().with_min_len(PIECE);
        converted.par_extend(entries.map(|v| -> T { Scalar::from_f64(*v) }));
        converted.resize(self.point_len, T::ZERO);
    }

    fn cached_point(
        &self,
        theta: &[f64],
        (id, samples): (DataId, Samples<T>),
        budget: usize,
    ) -> Result<Arc<CachedPoint<T>>> {
        let lock = || self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cached = lock();
        if let Some((cached_id, point)) = &*cached
            && *cached_id == id
            && point.is_at(theta)
            && point.budget == budget
        {
            return Ok(point.clone());
        }
        // Drops the old point first: two would need twice the memory.
        *cached = None;
        // The lock is free during the pass: rayon may run another call to this engine on this thread meanwhile.
        drop(cached);
        let point = Arc::new(
            self.network
                .cached_point(self.vector(theta), samples, budget)?,
        );
        *lock() = Some((id, point.clone()));
        Ok(point)
    }

    /// What is cached for the plane through θ, d₁ and d₂.
    fn plane_start(
        &self,
        vectors: [Vec<T>; 3],
        data: &Dataset,
        budget: usize,
    ) -> Arc<PlaneStart<T>> {
        let mut plane = self.plane.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((id, start)) = &*plane
            && *id == id_of(data)
            && start.is_on(&vectors, budget)
        {
            return start.clone();
        }
        let start = Arc::new(self.network.plane_start(vectors, data.len(), budget));
        *plane = Some((id_of(data), start.clone()));
        start
    }
}

impl<T: Scalar + WithDType> Typed<T> {
    /// The inputs in the network's dtype. Tokens are checked and become floating-point numbers, which are exact up to 2²⁴ in
    /// `f32`; those of the last dataset are kept.
    fn inputs(&self, data: &Dataset) -> Result<Tensor> {
        let inputs = data.inputs();
        let (DType::U32, Some(count)) = (inputs.dtype(), self.network.num_tokens) else {
            return Ok(inputs.clone());
        };
        let lock = || {
            self.converted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some((id, converted)) = &*lock()
            && *id == inputs.id()
        {
            return Ok(converted.clone());
        }
        let unknown = on_host(inputs, |tokens: &[u32]| {
            let unknown = tokens.iter().position(|token| *token as usize >= count);
            unknown.map(|i| (tokens[i], i / self.network.inputs))
        })?;
        if let Some((token, sample)) = unknown {
            return Err(Error::invalid(format!(
                "token {token} of sample {sample} is not in the embedding table, which has {count} rows"
            )));
        }
        let converted = inputs.to_dtype(T::DTYPE)?;
        *lock() = Some((inputs.id(), converted.clone()));
        Ok(converted)
    }

    /// The compressed inputs of a dataset, if the first layer reads them; those of the last dataset are kept.
    fn compressed(&self, data: &Dataset) -> Option<Arc<CompressedInputs<T>>> {
        let (row, id) = (self.network.sparse_row()?, data.inputs().id());
        let mut kept = self
            .compressed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((kept_id, inputs)) = &*kept
            && *kept_id == id
        {
            return Some(inputs.clone());
        }
        let split = self.network.split(data.len());
        let inputs = Arc::new(CompressedInputs::new(row, data.len(), split));
        *kept = Some((id, inputs.clone()));
        Some(inputs)
    }

    /// Calls `f` with a dataset's values, for a pass over all samples.
    fn with_all_samples<R>(&self, data: &Dataset, f: impl FnOnce(Samples<T>) -> R) -> Result<R> {
        let compressed = self.compressed(data);
        self.with_samples(data, compressed.as_deref(), f)
    }

    /// Calls `f` with a dataset's values.
    fn with_samples<R>(
        &self,
        data: &Dataset,
        compressed: Option<&CompressedInputs<T>>,
        f: impl FnOnce(Samples<T>) -> R,
    ) -> Result<R> {
        with_slices(&self.inputs(data)?, data, |inputs, targets| {
            f(Samples {
                inputs,
                targets,
                count: data.len(),
                compressed,
            })
        })
    }
}

impl<T: Scalar + WithDType> HandDerived for Typed<T> {
    fn outputs(&self, point: &[f64], data: &Dataset) -> Result<Vec<f64>> {
        let point = self.vector(point);
        let outputs =
            self.with_all_samples(data, |samples| self.network.outputs(&point, samples))??;
        Ok(outputs.into_iter().map(T::f64).collect())
    }

    fn loss(&self, point: &[f64], data: &Dataset) -> Result<(f64, usize)> {
        let point = self.vector(point);
        let (total, correct) =
            self.with_all_samples(data, |samples| self.network.loss(&point, samples))??;
        Ok((total / data.len() as f64, correct))
    }

    fn gradient(&self, point: &[f64], data: &Dataset) -> Result<(f64, Vec<f64>)> {
        let point = self.vector(point);
        let (total, gradient) =
            self.with_all_samples(data, |samples| self.network.gradient(&point, samples))??;
        Ok((total / data.len() as f64, gradient))
    }

    fn on_plane(
        &self,
        point: &[f64],
        directions: [&[f64]; 2],
        data: &Dataset,
        points: &[[f64; 2]],
        budget: usize,
    ) -> Result<Option<Vec<(f64, usize)>>> {
        let Some(rules) = self.network.affine_start() else {
            return Ok(None);
        };
        let [d1, d2] = directions;
        let second = match d2 {
            [] => Vec::new(),
            d2 => self.vector(d2),
        };
        let vectors = [self.vector(point), self.vector(d1), second];
        let points: Vec<[T; 2]> = points
            .iter()
            .map(|point| point.map(Scalar::from_f64))
            .collect();
        let start = self.plane_start(vectors, data, budget);
        let totals = self.with_all_samples(data, |samples| {
            self.network.on_plane(rules, &start, samples, &points)
        })??;
        let n = data.len() as f64;
        let means = totals.into_iter();
        Ok(Some(
            means.map(|(total, correct)| (total / n, correct)).collect(),
        ))
    }

    fn products(
        &self,
        point: &[f64],
        data: &Dataset,
        directions: &[&[f64]],
        curvature: Curvature,
        block: Option<&[Range<usize>]>,
        budget: usize,
    ) -> Result<Vec<Vec<f64>>> {
        let whole = |v: &&[f64]| {
            let mut converted = self.vectors.lend();
            match block {
                None => self.convert(v, &mut converted),
                Some(ranges) => {
                    *converted = embed(v, ranges, self.point_len, Scalar::from_f64);
                }
            }
            converted
        };
        let directions: Vec<_> = directions.iter().map(whole).collect();
        let directions: Vec<&[T]> = directions.iter().map(|v| v.as_slice()).collect();
        self.with_all_samples(data, |samples| {
            let point = self.cached_point(point, (id_of(data), samples), budget)?;
            self.network
                .products(&point, samples, &directions, curvature, block)
        })?
    }

    fn pullback(&self, point: &[f64], data: &Dataset, weights: &[f64]) -> Result<Vec<f64>> {
        let point = self.vector(point);
        let weights: Vec<T> = weights.iter().map(|u| Scalar::from_f64(*u)).collect();
        let compressed = self.compressed(data);
        let (_, sum) = on_host(&self.inputs(data)?, |inputs| {
            let samples = Samples {
                inputs,
                targets: TargetSlice::Weights(&weights),
                count: data.len(),
                compressed: compressed.as_deref(),
            };
            self.network.gradient(&point, samples)
        })??;
        Ok(sum)
    }

    fn visit(
        &self,
        point: &[f64],
        data: &Dataset,
        visitor: &mut (dyn FnMut(LayerTile) + Send),
    ) -> Result<()> {
        let point = self.vector(point);
        self.with_all_samples(data, |samples| self.network.visit(&point, samples, visitor))?
    }

    fn curvature_factors(
        &self,
        point: &[f64],
        data: &Dataset,
        columns: RootColumns,
    ) -> Result<CurvatureFactors> {
        let point = self.vector(point);
        self.with_all_samples(data, |samples| {
            self.network.curvature_factors(&point, samples, columns)
        })?
    }

    fn diagonal_in_bases(
        &self,
        point: &[f64],
        data: &Dataset,
        columns: RootColumns,
        bases: &[[Vec<f64>; 2]],
    ) -> Result<Vec<Vec<f64>>> {
        let point = self.vector(point);
        self.with_all_samples(data, |samples| {
            self.network
                .diagonal_in_bases(&point, samples, columns, bases)
        })?
    }

    fn sample_derivatives(
        &self,
        point: &[f64],
        data: &Dataset,
        direction: &[f64],
    ) -> Result<Vec<f64>> {
        let [point, direction] = [point, direction].map(|v| self.vector(v));
        self.with_all_samples(data, |samples| {
            self.network.sample_derivatives(&point, samples, &direction)
        })?
    }

    fn sample_gradient_norms(&self, point: &[f64], data: &Dataset) -> Result<Vec<f64>> {
        let point = self.vector(point);
        self.with_all_samples(data, |samples| {
            self.network.sample_gradient_norms(&point, samples)
        })?
    }
}

/// Calls `f` with these inputs and a dataset's targets as slices.
fn with_slices<T: WithDType, R>(
    inputs: &Tensor,
    data: &Dataset,
    f: impl FnOnce(&[T], TargetSlice<T>) -> R,
) -> Result<R> {
    on_host(inputs, |inputs: &[T]| match data.targets() {
        Targets::Labels(labels) => on_host(labels, |labels: &[u32]| {
            f(inputs, TargetSlice::Labels(labels))
        }),
        Targets::Values(values) => on_host(values, |values: &[T]| {
            f(inputs, TargetSlice::Values(values))
        }),
    })?
}

/// Calls `f` with a CPU tensor's values, in row-major order, without a copy if they are contiguous.
fn on_host<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
    else {
        return Err(Error::invalid("the data is no longer on the CPU"));
    };
    Ok(f(&T::cpu_storage_as_slice(storage)?[start..end]))
}
