//! Data: [`Dataset`], its seeded subsets and batches; datasets by name ([`mnist`], [`cifar10`], [`cifar100`], [`synthetic`]), from files
//! ([`DataReader`], [`idx`], `ImageFolder`), from arrays and tables in memory, and from [`Text`].

pub mod cifar10;
pub mod cifar100;
pub mod idx;
pub mod mnist;
pub mod synthetic;

mod array_file;
mod batches;
mod dataset;
#[cfg(feature = "datasets")]
mod download;
mod fashion_mnist;
#[cfg(feature = "tables")]
mod frame;
mod from_arrays;
#[cfg(feature = "datasets")]
mod image_folder;
mod input_normalization;
mod label_noise;
mod labels;
mod public;
mod reader;
mod sample_source;
mod stored_arrays;
mod stored_rows;
mod stored_samples;
#[cfg(feature = "tables")]
mod table_file;
mod text;
mod train_test;

pub use batches::Batches;
pub(crate) use batches::even_parts;
pub use cifar10::Cifar10;
pub use cifar100::Cifar100;
pub use dataset::{Dataset, Targets};
pub use fashion_mnist::FashionMnist;
#[cfg(feature = "datasets")]
pub use image_folder::ImageFolder;
pub use input_normalization::InputNormalization;
pub use mnist::Mnist;
pub use public::{PublicSet, data_dir};
pub use reader::DataReader;
pub use sample_source::SampleSource;
pub use stored_samples::StoredSamples;
pub use text::Text;
pub use train_test::{TestSource, TrainTest};
