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

    /// Index of the last axis.
    pub(crate) fn last_axis(&self) -> usize {
        self.0.len().saturating_sub(1)
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
    /// Its kind, and the names of its parameters, or its settings if it has none.
    pub layer: String,
    /// The shape that reaches it.
    pub input: Shape,
    /// What it needs.
    pub wanted: String,
}

impl Misfit {
    pub(crate) fn new(layer: &impl Layer, input: &Shape, wanted: String) -> Self {
        Self {
            layer: named(layer),
            input: input.clone(),
            wanted,
        }
    }
}

/// A layer's kind, and the names of its parameters, or its settings if it has none.
pub(super) fn named(layer: &impl Layer) -> String {
    described(&format!("{layer:?}"))
}

/// Turns the `Debug` form of a layer into its kind and the names of its first parameters, the only strings in it, or
/// its settings if it has no parameters.
fn described(debug: &str) -> String {
    const MOST: usize = 4;
    let kind_end = debug.find(|c: char| !c.is_alphanumeric());
    let (kind, fields) = debug.split_at(kind_end.unwrap_or(debug.len()));
    let names = fields.split('"').skip(1).step_by(2);
    let mut names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.len() > MOST {
        names.truncate(MOST);
        names.push("…".into());
    }
    let settings = fields.trim_matches([' ', '{', '}', '(', ')']);
    match (&names[..], settings) {
        ([], "") => kind.into(),
        ([], settings) => format!("{kind} ({})", settings.replace(": ", " ")),
        _ => format!("{kind} ({})", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{
        Activation, BatchNorm, Conv2d, Dropout, Flatten, LayerKind, Linear, MaxPool, Residual,
        Unflatten,
    };

    #[test]
    fn a_misfit_shows_the_kind_of_layer_and_its_parameters_or_settings() {
        fn shown(layer: impl Layer) -> String {
            Misfit::new(&layer, &Shape::new([2, 3]), "more".into()).layer
        }
        let linear = || Linear::new("layers.0.weight", "layers.0.bias");
        assert_eq!(
            shown(linear()),
            "Linear (`layers.0.weight`, `layers.0.bias`)"
        );
        assert_eq!(shown(Conv2d::new("w").with_stride(2)), "Conv2d (`w`)");
        assert_eq!(
            shown(BatchNorm::new("n")),
            "BatchNorm (`n.weight`, `n.bias`, `n.running_mean`, `n.running_var`)"
        );
        let pool = "MaxPool (kernel 2, stride 1, padding 0)";
        assert_eq!(shown(MaxPool::new(2, 1)), pool);
        assert_eq!(shown(Dropout::new(1.5)), "Dropout (rate 1.5)");
        assert_eq!(shown(Unflatten(vec![1, 28])), "Unflatten ([1, 28])");
        assert_eq!(shown(Flatten), "Flatten");
        let body: Vec<LayerKind> = vec![linear().into(), Activation::Tanh.into(), linear().into()];
        let residual = Residual {
            shortcut: vec![linear().into()],
            body,
        };
        assert_eq!(
            shown(residual),
            "Residual (`layers.0.weight`, `layers.0.bias`, `layers.0.weight`, `layers.0.bias`, …)"
        );
    }
}
