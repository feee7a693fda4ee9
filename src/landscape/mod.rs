//! Slices of the loss: [`Line`]s and [`Plane`]s through the point where a model stands, along
//! [`direction`]s in θ-space. The model is the same afterwards, to the bit.

pub mod direction;

mod line;
mod plane;

pub use line::Line;
pub use plane::Plane;

use crate::error::{Error, Result};

fn check_grid(radius: f64, points: usize) -> Result<()> {
    if !(radius > 0.0 && radius.is_finite()) {
        return Err(Error::invalid(format!(
            "a radius of {radius} spans nothing: give a finite number above 0"
        )));
    }
    if points < 2 {
        return Err(Error::invalid(format!(
            "{points} points make no line: ask for at least 2, an odd number to have the centre \
             among them"
        )));
    }
    Ok(())
}
