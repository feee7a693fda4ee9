//! Training: [`Trainer`], the [`History`] it leaves, and the [`Trajectory`] of θ.

mod history;
mod trainer;
mod trajectory;

pub use history::{Epoch, History};
pub use trainer::Trainer;
pub(crate) use trainer::adam;
pub use trajectory::Trajectory;
