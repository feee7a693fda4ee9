//! [`Patches`]: an image as a sequence of square patches.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::copied_rows::CopiedRows;
use super::graph::GraphBuilder;
use super::units::repeated;
use super::{Layer, Misfit, Pass, Shape, UnitGraph};
use crate::kernels::Scalar;
use crate::parameters::Parameters;

/// Cuts an image into squares of `size` × `size` pixels, row by row. The values of a patch are those of its first channel, row by
/// row, then those of the next. A [`Linear`](super::Linear) layer after it is a convolution of kernel and stride `size`.
///
/// ```
/// use loss_landscape::layers::{Linear, Patches};
/// use loss_landscape::prelude::*;
///
/// // The sum over each patch.
/// let ones = Var::ones((1, 4), DType::F32, &Device::Cpu)?;
/// let parameters = Parameters::new([("sum".to_owned(), ones)])?;
/// let layers = vec![Patches::new(2).into(), Linear::without_bias("sum").into()];
/// let image = Tensor::new(&[[[[1f32, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]]]], &Device::Cpu)?;
/// let sums = Layered::new(layers, parameters).forward(&image)?;
/// assert_eq!(sums.to_vec3::<f32>()?, [[[10.0], [26.0]]]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Shapes
/// Samples of shape (channels, height, width) to (height/size · width/size, channels · size²).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patches {
    /// Side of a patch in pixels; it divides height and width.
    pub size: usize,
}

impl Patches {
    /// Patches of `size` × `size` pixels.
    pub fn new(size: usize) -> Self {
        Self { size }
    }

    /// Channels, and number of rows and columns of patches.
    fn grid(&self, input: &Shape) -> Result<[usize; 3], Misfit> {
        let misfit = |wanted: String| Misfit::new(self, input, wanted);
        let Some([channels, height, width]) = input.image() else {
            let wanted =
                "images of shape (channels, height, width): put an Unflatten layer before it";
            return Err(misfit(wanted.into()));
        };
        let divides = |n: usize| n > 0 && self.size > 0 && n.is_multiple_of(self.size);
        match divides(height) && divides(width) {
            true => Ok([channels, height / self.size, width / self.size]),
            false => Err(misfit(format!(
                "a height and a width that are multiples of {}",
                self.size
            ))),
        }
    }
}

impl Layer for Patches {
    fn output_shape(&self, input: &Shape, _parameters: &Parameters) -> Result<Shape, Misfit> {
        let [channels, rows, columns] = self.grid(input)?;
        let values = channels * self.size * self.size;
        Ok(Shape::new([rows * columns, values]))
    }

    fn forward(
        &self,
        x: &Tensor,
        _parameters: &Parameters,
        _pass: &mut Pass,
    ) -> candle_core::Result<Tensor> {
        let (n, channels, height, width) = x.dims4()?;
        let size = self.size;
        let (rows, columns) = (height / size, width / size);
        let squares = x.reshape(vec![n, channels, rows, size, columns, size])?;
        let patches = squares.permute(vec![0, 2, 4, 1, 3, 5])?;
        patches.reshape((n, rows * columns, channels * size * size))
    }

    fn add_rules<T: Scalar>(&self, network: &mut GraphBuilder<T>) -> Result<(), Misfit> {
        let input = network.shape().clone();
        let output = self.output_shape(&input, network.parameters())?;
        network.push(patch_rows(self.grid(&input)?, self.size), output);
        Ok(())
    }

    fn add_units(&self, graph: &mut UnitGraph) -> Result<(), Misfit> {
        let shape = self.output_shape(graph.shape(), graph.parameters())?;
        let units = repeated(&graph.read(self, 0), self.size * self.size);
        graph.output(shape, 1, units);
        Ok(())
    }
}

/// The rows of the patches.
fn patch_rows([channels, rows, columns]: [usize; 3], size: usize) -> CopiedRows {
    let mut starts = Vec::with_capacity(rows * columns * channels * size);
    for row in 0..rows {
        for column in 0..columns {
            for channel in 0..channels {
                for i in 0..size {
                    let line = (channel * rows + row) * size + i;
                    starts.push((line * columns + column) * size);
                }
            }
        }
    }
    CopiedRows {
        input_len: starts.len() * size,
        width: size,
        starts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::checks::{Tile, check, evaluate};

    #[test]
    fn patches_have_the_pixels_of_their_squares_and_derivatives_match_differences() {
        for ([channels, rows, columns], size) in [
            ([2, 2, 3], 2),
            ([3, 1, 2], 4),
            ([1, 3, 1], 1),
            ([1, 1, 1], 3),
        ] {
            let (height, width) = (rows * size, columns * size);
            let len = channels * height * width;
            let rules = patch_rows([channels, rows, columns], size);
            for (samples, k) in [(3, 2), (1, 1)] {
                let tile = Tile::random([len, len, 2], samples, k, 3);
                let found = evaluate::<f64>(&rules, &tile).y;
                for (i, y) in found.iter().enumerate() {
                    let (sample, i) = (i / len, i % len);
                    let (patch, i) = (i / (len / (rows * columns)), i % (len / (rows * columns)));
                    let (channel, i) = (i / (size * size), i % (size * size));
                    let row = patch / columns * size + i / size;
                    let column = patch % columns * size + i % size;
                    let pixel = ((sample * channels + channel) * height + row) * width + column;
                    assert_eq!(*y, tile.x[pixel]);
                }
                check(&rules, &tile, 1e-10);
                check(&rules, &Tile { rx: None, ..tile }, 1e-10);
            }
        }
    }
}
