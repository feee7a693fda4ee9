//! The shape of the loss around a point and between points. Every algorithm here needs only an [`Objective`] and leaves the
//! model's parameters unchanged, bit for bit.
//!
//! | question | item |
//! | --- | --- |
//! | loss along a direction or between two models | [`Line`] |
//! | loss on a plane spanned by two [`direction`]s; a training trajectory on that plane | [`Plane`], [`Projection`] |
//! | loss barriers and low-loss paths between two models | [`Curve`], [`PathTrainer`], [`Connectivity`] |
//! | which hidden units of two models correspond | [`align`] |
//! | batch normalisation's running statistics at other points than the trained one | [`RunningStatistics`] |
//! | sharpness of a minimum | [`Sharpness`], [`Flatness`], [`directional_sharpness`] |
//! | measures that do not change under rescalings of layers | [`FisherRaoNorm`], [`RelativeFlatness`], [`NormalizedSharpness`] |
//! | sharpness for SGD and for Adam | [`PreconditionedSharpness`] |
//! | degeneracy of a minimum: its local learning coefficient | [`LearningCoefficient`] |
//! | influence of training samples on a test loss | [`Influence`] |
//! | curvature during training | [`Evolution`] |
//! | sharpness and the edge of stability during training | [`Stability`], [`BatchSharpness`], [`CriticalSharpness`] |
//! | mean path of gradient descent at the edge of stability | [`CentralFlow`] |
//! | classes and the Hessian's outliers | [`ClassStructure`] |
//! | gradient noise and its effect on SGD | [`GradientNoise`], [`ImplicitBias`] |
//! | PAC-Bayes bounds on the error on unseen data | [`PacBayes`], [`DiagonalPacBayes`] |
//! | loss change of one step; stable learning rates | [`StepChange`], [`StableRate`] |
//!
//! [`Objective`]: crate::objective::Objective

pub mod align;

mod arrays;
mod class_structure;
mod influence;
mod learning_coefficient;
mod noise;
mod paths;
mod sharpness;
mod slices;
mod stability;
#[cfg(feature = "tables")]
mod table;
mod vtk;

pub use align::{HiddenUnits, Matching, UnitAxis};
pub use class_structure::{
    ClassPart, ClassParts, ClassStructure, ClassStructureReport, ExplainedEigenvalue,
    HessianDifference, PartTraces,
};
pub use influence::{Influence, InfluenceReport, InfluenceSolver};
pub use learning_coefficient::{
    LearningCoefficient, LearningCoefficientReport, LearningCoefficientVerdict,
};
pub use noise::{GradientNoise, ImplicitBias, ModifiedLoss, NoiseReport, StableRate};
pub use paths::{
    Connectivity, Curve, NormStatistics, PathProfile, PathShape, PathTrainer, RunningStatistics,
};
pub use sharpness::{
    AverageSharpness, CurvatureSnapshot, DiagonalPacBayes, DiagonalPacBayesBound, Evolution,
    EvolutionSettings, FisherRaoNorm, Flatness, FlatnessReport, KeskarSharpness, MSharpness,
    NormalizedSharpness, PacBayes, PacBayesBound, PacBayesRow, PreconditionedSharpness,
    RandomSharpness, RelativeFlatness, SamStep, Sharpness, TopSpace, WorstCase,
    directional_sharpness,
};
pub use slices::{
    ExtremeEigenvalues, Grid, Line, Plane, Projection, StatisticsSource, StepChange, direction,
};
pub use stability::{
    BatchSharpness, CentralFlow, CentralFlowPoint, CentralFlowReport, CriticalSharpness, Stability,
    StabilityMeasure, StabilityPoint, StabilityReport, stability_threshold,
};
