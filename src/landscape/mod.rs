//! Slices of the loss and what they measure, by algorithms that see only an
//! [`Objective`]: the model is the same afterwards, to the bit.
//!
//! | question | answer |
//! | --- | --- |
//! | the loss along a direction, or between two models | [`Line`] |
//! | the loss over two [`direction`]s, and a training on that plane | [`Plane`], [`Projection`] |
//! | what stands between two models, and ways around it | [`Curve`], [`PathTrainer`], [`Connectivity`] |
//! | which hidden units of two models are the same | [`align`] |
//! | batch normalisation's statistics away from where the model was trained | [`RunningStatistics`] |
//! | how sharp a minimum is | [`Sharpness`], [`Flatness`], [`directional_sharpness`] |
//! | curvature during training | [`Evolution`] |
//! | the noise of the samples' gradients, and where it drives SGD | [`GradientNoise`], [`ImplicitBias`] |
//! | a bound on the error on other data, for weights drawn around the model's | [`PacBayes`] |
//! | what a step will do, which learning rates are stable | [`StepChange`], [`StableRate`] |

pub mod align;

mod noise;
mod paths;
mod sharpness;
mod slices;
#[cfg(feature = "tables")]
mod table;

pub use align::{HiddenUnits, Matching, UnitAxis};
pub use noise::{GradientNoise, ImplicitBias, ModifiedLoss, NoiseReport, StableRate};
pub use paths::{
    Connectivity, Curve, NormStatistics, PathProfile, PathShape, PathTrainer, RunningStatistics,
};
pub use sharpness::{
    AverageSharpness, CurvatureSnapshot, Evolution, EvolutionSettings, Flatness, FlatnessReport,
    KeskarSharpness, PacBayes, PacBayesBound, PacBayesRow, RandomSharpness, SamStep, Sharpness,
    WorstCase, directional_sharpness,
};
pub use slices::{
    ExtremeEigenvalues, Grid, Line, Plane, Projection, StatisticsSource, StepChange, direction,
};
