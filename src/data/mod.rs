//! Data: [`Dataset`], its seeded subsets and batches; [`mnist`] and [`synthetic`] sets.

pub mod mnist;
pub mod synthetic;

mod batches;
mod dataset;

pub use batches::Batches;
pub use dataset::{Dataset, Targets};
pub use mnist::Mnist;
