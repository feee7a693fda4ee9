//! [`RowProduct`]: a layer as products of rows of its input with weights.

use std::ops::Range;

use crate::kernels::Scalar;
use crate::kernels::convolution::ConvolutionShape;

/// A part of a layer's output as products y_t = W a_t + b of rows a_t of its input with the same weights, for each position t.
pub(crate) struct RowProduct {
    /// Number of rows of a sample.
    pub(crate) positions: usize,
    /// Number of values of a row a.
    pub(crate) inputs: usize,
    /// Number of rows of W.
    pub(crate) outputs: usize,
    /// Ranges in θ of the rows of W, one below the other.
    pub(crate) weights: Vec<Range<usize>>,
    /// Ranges in θ of b, or none.
    pub(crate) biases: Vec<Range<usize>>,
    pub(crate) layout: RowLayout,
}

/// Where the rows are in a sample of the layer's input and output.
pub(crate) enum RowLayout {
    /// One after another.
    Rows,
    /// The pixels that the kernel covers at each output pixel, for one group of channels.
    Windows {
        shape: ConvolutionShape,
        /// Height and width of the output.
        output: [usize; 2],
        group: usize,
    },
}

impl RowProduct {
    pub(crate) fn has_bias(&self) -> bool {
        !self.biases.is_empty()
    }

    /// Number of columns of [W b].
    pub(crate) fn columns(&self) -> usize {
        self.inputs + usize::from(self.has_bias())
    }

    /// The rows a of a tile of inputs, each followed by 1 if there is a bias. Shape (samples · positions, columns).
    pub(crate) fn input_rows<T: Scalar>(&self, x: &[T], rows: &mut Vec<f64>) {
        rows.clear();
        match &self.layout {
            RowLayout::Rows => {
                for row in x.chunks_exact(self.inputs) {
                    rows.extend(row.iter().map(|x| x.f64()));
                    rows.extend(self.has_bias().then_some(1.0));
                }
            }
            RowLayout::Windows {
                shape,
                output: [down, right],
                group,
            } => {
                let [channels, height, width] = shape.input;
                let in_group = channels / shape.groups;
                let size = height * width;
                // The tap's place in the image, unless it is in the padding.
                let place = |out: usize, tap: usize, len: usize| {
                    let at = out * shape.stride + tap * shape.dilation;
                    at.checked_sub(shape.padding).filter(|at| *at < len)
                };
                for sample in x.chunks_exact(channels * size) {
                    let images = &sample[group * in_group * size..][..in_group * size];
                    for (y, x) in (0..*down).flat_map(|y| (0..*right).map(move |x| (y, x))) {
                        for image in images.chunks_exact(size) {
                            for i in 0..shape.kernel[0] {
                                let row = place(y, i, height);
                                rows.extend((0..shape.kernel[1]).map(|j| {
                                    let pixel = row.zip(place(x, j, width));
                                    pixel.map_or(0.0, |(row, column)| {
                                        image[row * width + column].f64()
                                    })
                                }));
                            }
                        }
                        rows.extend(self.has_bias().then_some(1.0));
                    }
                }
            }
        }
    }

    /// The same positions of a tile of the layer's outputs, or of derivatives with respect to them. Shape (samples · positions,
    /// outputs).
    pub(crate) fn output_rows<T: Scalar>(&self, y: &[T], rows: &mut Vec<f64>) {
        rows.clear();
        match &self.layout {
            RowLayout::Rows => rows.extend(y.iter().map(|y| y.f64())),
            RowLayout::Windows { shape, group, .. } => {
                let sample = shape.channels * self.positions;
                let start = group * self.outputs * self.positions;
                for sample in y.chunks_exact(sample) {
                    let images = &sample[start..][..self.outputs * self.positions];
                    for t in 0..self.positions {
                        let pixels = images[t..].iter().step_by(self.positions);
                        rows.extend(pixels.map(|y| y.f64()));
                    }
                }
            }
        }
    }
}
