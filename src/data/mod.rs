//! Data: [`Dataset`], its seeded subsets and batches; [`mnist`], [`cifar10`] and [`synthetic`] sets;
//! [`Text`].

pub mod cifar10;
pub mod mnist;
pub mod synthetic;

mod batches;
mod dataset;
mod label_noise;
mod sample_source;
mod stored_samples;
mod text;

pub use batches::Batches;
pub(crate) use batches::even_parts;
pub use cifar10::Cifar10;
pub use dataset::{Dataset, Targets};
pub use mnist::Mnist;
pub use sample_source::SampleSource;
pub use stored_samples::StoredSamples;
pub use text::Text;
