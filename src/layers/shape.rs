//! [`Shape`] of a sample, and [`Misfit`] of a layer and a shape.

use std::fmt;

use super::Layer;

/// The shape of one sample, without the batch axis: (784,), (3, 32, 32) or (64, 128).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// The shape of these sizes.
    pub fn new(dims: impl Into<Vec<usize>>) -> Self {
        Self(dims.into())
    }

    /// Size of each axis.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Number of values.
    #[allow(clippy::len_without_is_empty)] // a size, not a container
    pub fn len(&self) -> usize {
        self.0.iter().product()
    }

    /// Size of the last axis; 1 without axes.
    pub(crate) fn last(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// Channels, height and width, if the sample is an image.
    pub(crate) fn image(&self) -> Option<[usize; 3]> {
        self.0.as_slice().try_into().ok()
    }

    /// Number of channels, the first axis, and of values per channel.
    pub(crate) fn channels(&self) -> [usize; 2] {
        match self.0.split_first() {
            Some((channels, rest)) => [*channels, rest.iter().product()],
            None => [0, 0],
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [size] => write!(f, "({size},)"),
            dims => {
                let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
                write!(f, "({})", dims.join(", "))
            }
        }
    }
}

/// A layer that cannot take samples of the shape that reaches it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{layer} cannot take samples of shape {input}: it needs {wanted}")]
#[non_exhaustive]
pub struct Misfit {
    /// The layer and its settings.
    pub layer: String,
    /// The shape that reaches it.
    pub input: Shape,
    /// What it needs.
    pub wanted: String,
}

impl Misfit {
    pub(crate) fn new(layer: &impl Layer, input: &Shape, wanted: String) -> Self {
        const LONGEST: usize = 120;
        let mut name = format!("{layer:?}");
        if let Some((end, _)) = name.char_indices().nth(LONGEST) {
            name.truncate(end);
            name.push('…');
        }
        Self {
            layer: name,
            input: input.clone(),
            wanted,
        }
    }
}
