//! Networks and weights from elsewhere: [`Matching`] matches the tensors of a file to a model's parameters.

mod weights;

pub use weights::Matching;
