//! The geometry of a neural network's loss, for [candle](candle_core) models: Hessian spectra,
//! sharpness, planes and paths, alignment, trajectories, each number with its error, in Rust
//! notebooks and on the command line.
//!
//! ```
//! use loss_landscape::prelude::*;
//!
//! # fn main() -> Result<(), Error> {
//! let data = two_moons(200, 0.1, 0, &Device::Cpu)?;
//! let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 1, data.device())?.to_dtype(DType::F64)?;
//! Trainer::adam(0.05).with_batch_size(20).with_epochs(20).fit(&model, &data, &data)?;
//!
//! let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
//! let spectrum = objective.hessian().dense()?.eigen()?;
//! println!("{}", spectrum.inertia()?); // for example "saddle point: 4 negative, …"
//! assert_eq!(spectrum.pairs.len(), objective.dim());
//! let plane = Plane::random(&objective, 0, 1.0, 21)?;
//! assert_eq!(figure::surface(&plane).title(), "Loss surface");
//! # Ok(())
//! # }
//! ```
//!
//! # Notation
//!
//! θ is the vector of all parameters, in the order of [`model::Parameters`]. Vectors that an
//! [`objective::Objective`] returns are `f64` on the host, whatever the model's dtype and device. A
//! *direction* is a vector in θ-space; a *plane* is a point and two directions. Every estimate
//! has its uncertainty: an eigenpair its residual ‖Hv − λv‖, a trace its standard error, a
//! density its standard error over the probes.
//!
//! # Modules, from the bottom up
//!
//! | module | contents |
//! | --- | --- |
//! | [`progress`], [`files`], [`ranks`] | progress of long work and how to stop it, files that are never half-written, cooperating processes |
//! | [`data`] | datasets from files and memory, seeded subsets and batches; MNIST, CIFAR, text, synthetic sets |
//! | [`nn`] | layers for candle models of your own: convolutions and the parts of transformers that differentiate twice |
//! | [`layers`] | the kinds of layers whose derivatives are hand-derived, one file each |
//! | [`model`] | models, the zoo, parameters as one vector |
//! | [`import`] | networks and weights from elsewhere |
//! | [`objective`] | loss, gradient and Hessian-vector product at a point |
//! | [`train`] | training, its history, and the trajectory of θ |
//! | [`operator`] | matrices given by their products: Hessian, Gauss–Newton, Fisher, blocks, dense |
//! | [`spectral`] | algorithms that see only an operator: eigenvalues, spectral density, traces |
//! | [`landscape`] | algorithms that see only an objective: directions, lines, planes, sharpness, paths, noise |
//! | [`embedding`] | algorithms that see only points: projections to few dimensions, and their quality |
//! | [`analysis`] | a full analysis of a model in one call, with a report |
//! | [`sweep`] | the L2 study: a training and a spectrum at each strength, in a directory of files |
//! | [`figure`] | figures of results; computes nothing |
//! | [`notebook`] | output of notebook cells |
//!
//! A module imports only modules above it in this table. `docs/architecture.md` says how to add to each.
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `datasets` | yes | downloads of public datasets ([`data::PublicSet`]), with candle-datasets; images from files |
//! | `figures` | yes | [`figure`], with plotly |
//! | `tables` | yes | the `table` methods of results, [`tables`] and [`sweep`], with polars |
//! | `cli` | yes | the program `landscape`, with clap and indicatif; needs `figures` and `tables` |
//! | `cuda` | no | models and data on an NVIDIA GPU ([`model::best_device`]) |
//! | `mpi` | no | several processes under `mpirun` ([`ranks`]) |
//!
//! `default-features = false` compiles the numerical code alone.
//!
//! # In a notebook
//!
//! Cells must reach candle, plotly, polars, ndarray and serde through this crate, which re-exports
//! them: a cell that links candle by itself gets a second copy whose tensors share numbers with
//! the first's, and gradients come out wrong without an error. `use loss_landscape::prelude::*`
//! imports what cells usually name; the rest is in the modules.

mod checkpoint;
mod engine;
mod error;
mod kernels;
mod losses;
mod parameters;
mod partial_results;
mod pool;
mod random;
mod recycled;
mod tensor_functions;
mod vector;
mod verdict;

pub mod analysis;
pub mod data;
pub mod embedding;
#[cfg(feature = "figures")]
pub mod figure;
pub mod files;
pub mod import;
pub mod landscape;
pub mod layers;
pub mod memory;
pub mod model;
pub mod nn;
pub mod notebook;
pub mod objective;
pub mod operator;
pub mod progress;
pub mod ranks;
pub mod spectral;
#[cfg(feature = "tables")]
pub mod sweep;
#[cfg(feature = "tables")]
pub mod tables;
pub mod train;

pub use error::{Error, Result};

pub use candle_core as candle;
#[cfg(feature = "figures")]
pub use plotly;
#[cfg(feature = "tables")]
pub use polars;
pub use {candle_nn, ndarray, serde, serde_json};

/// The names that cells and programs usually write: tensors and devices, data, models, settings, types with
/// constructors, and traits whose methods must be in scope.
///
/// Import all other names from their modules, also types that are only results, such as
/// [`spectral::Spectrum`]. The prelude has no `Result`, because the kernel wraps cells in
/// code that uses the standard one by that name.
pub mod prelude {
    pub use crate::candle::{self, DType, Device, Module, Tensor, Var};
    pub use crate::candle_nn::{self, VarBuilder, VarMap};
    // The kernel names it in the type of a stored `VarBuilder`, without its path.
    pub use crate::candle_nn::var_builder::SimpleBackend;

    pub use crate::Error;
    pub use crate::analysis::Analyzer;
    pub use crate::data::synthetic::{spirals, teacher_student, two_moons};
    pub use crate::data::{Dataset, Mnist, Targets};
    pub use crate::embedding::{Autoencoder, Comparison, Pca};
    pub use crate::import::Onnx;
    pub use crate::landscape::{
        ClassStructure, Connectivity, EvolutionSettings, GradientNoise, Grid, ImplicitBias,
        Influence, LearningCoefficient, Line, PacBayes, PathTrainer, Plane, Projection, Sharpness,
        Stability, StableRate, StepChange, direction,
    };
    pub use crate::model::{
        Activation, Architecture, Layered, Mlp, Model, Norm, Parameters, best_device,
    };
    pub use crate::nn;
    pub use crate::notebook::Show;
    pub use crate::objective::{Loss, Objective};
    pub use crate::operator::{Dense, Kfac, LinearOperator};
    pub use crate::progress;
    pub use crate::spectral::{
        Alignment, ConjugateGradients, DensitySettings, Lanczos, PowerIteration, PowerLawSettings,
        Spectral, Trace, TraceMethod, Which,
    };
    pub use crate::train::{Trainer, Trajectory};

    #[cfg(feature = "figures")]
    pub use crate::figure;
    #[cfg(feature = "tables")]
    pub use crate::sweep::Sweep;
}
