//! Training: [`Trainer`] and the [`History`] it leaves.

mod history;
mod trainer;

pub use history::{Epoch, History};
pub use trainer::Trainer;
