//! Training: [`Trainer`], the [`History`] it leaves, and the [`Trajectory`] of θ.

mod descent;
mod history;
mod optimizer;
mod passes;
mod schedule;
#[cfg(feature = "tables")]
mod table;
mod trainer;
mod trajectory;

pub use history::{Epoch, History};
pub(crate) use optimizer::Optimizer;
pub use schedule::Schedule;
pub use trainer::Trainer;
pub use trajectory::Trajectory;
