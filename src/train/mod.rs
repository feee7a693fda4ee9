//! Training: [`Trainer`], its [`Optimizer`]s, the [`History`] of a training, and the [`Trajectory`] of θ.

mod adam;
mod checkpoint;
mod clip;
mod history;
mod observer;
mod optimizer;
mod sam;
mod schedule;
mod sgd;
mod stepper;
#[cfg(feature = "tables")]
mod table;
mod trainer;
mod trajectory;

pub use adam::{Adam, DecayGroup};
pub use history::{Epoch, History};
pub(crate) use observer::{ObservedStep, StepObserver};
pub(crate) use optimizer::{BuiltIn, VarOptimizer};
pub use optimizer::{Optimizer, SliceUpdate, Step};
pub use sam::Sam;
pub use schedule::Schedule;
pub use sgd::Sgd;
pub use trainer::Trainer;
pub use trajectory::Trajectory;

/// Largest number of values of θ that a thread changes at a time.
const CHUNK: usize = 1 << 14;
