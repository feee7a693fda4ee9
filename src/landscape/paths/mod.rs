//! Paths between two models, the loss along them, and batch-normalisation statistics on the way.

mod connectivity;
mod curve;
mod path_profile;
mod path_trainer;
mod running_statistics;

pub use connectivity::Connectivity;
pub use curve::Curve;
pub use path_profile::PathProfile;
pub use path_trainer::{PathShape, PathTrainer};
pub use running_statistics::{NormStatistics, RunningStatistics};
