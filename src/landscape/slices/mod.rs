//! Loss on lines and planes through a point, and the directions that span them.

pub mod direction;

mod filter_normalization;
mod fingerprint;
mod grid;
mod line;
mod loss_at_points;
mod nan_as_null;
mod plane;
mod plane_eigenvalues;
mod statistics_source;
mod step_change;
mod trajectory_projection;

pub use grid::Grid;
pub use line::Line;
pub use plane::Plane;
pub use plane_eigenvalues::ExtremeEigenvalues;
pub use statistics_source::StatisticsSource;
pub use step_change::StepChange;
pub use trajectory_projection::Projection;

pub(super) use loss_at_points::points_per_pass;
