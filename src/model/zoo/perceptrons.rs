//! Networks for vectors.

use super::Design;
use crate::error::Result;
use crate::layers::{Flatten, LayerInit, LayerKind, Linear};

/// Hidden layers of the given widths, one after another.
pub(super) fn plain(
    design: &Design,
    init: &mut LayerInit,
    [inputs, outputs]: [usize; 2],
    widths: &[usize],
) -> Result<Vec<LayerKind>> {
    let mut layers = vec![Flatten.into()];
    let mut width = inputs;
    for (i, next) in widths.iter().enumerate() {
        layers.push(Linear::init(init, &format!("hidden{i}"), width, *next)?);
        layers.extend(design.norm_and_activation(init, &format!("hidden{i}.norm"), *next)?);
        width = *next;
    }
    layers.push(Linear::init_readout(init, "out", width, outputs)?);
    Ok(layers)
}

/// h ← h + W₂ φ(W₁ φ(h) + b₁) + b₂, four times.
pub(super) fn residual(
    design: &Design,
    init: &mut LayerInit,
    [inputs, outputs]: [usize; 2],
) -> Result<Vec<LayerKind>> {
    const WIDTH: usize = 64;
    let mut layers = vec![Flatten.into(), Linear::init(init, "stem", inputs, WIDTH)?];
    for block in 0..4 {
        let name = |part: &str| format!("block{block}.{part}");
        let mut body = design.norm_and_activation(init, &name("norm1"), WIDTH)?;
        body.push(Linear::init(init, &name("linear1"), WIDTH, WIDTH)?);
        body.extend(design.norm_and_activation(init, &name("norm2"), WIDTH)?);
        body.push(Linear::init(init, &name("linear2"), WIDTH, WIDTH)?);
        layers.extend(design.residual_block(body));
    }
    layers.extend(design.norm_and_activation(init, "norm", WIDTH)?);
    layers.push(Linear::init_readout(init, "out", WIDTH, outputs)?);
    Ok(layers)
}

/// h ← (h, φ(W h + b)), four times.
pub(super) fn dense(
    design: &Design,
    init: &mut LayerInit,
    [inputs, outputs]: [usize; 2],
) -> Result<Vec<LayerKind>> {
    const GROWTH: usize = 32;
    let mut layers = vec![Flatten.into()];
    let mut width = inputs;
    for i in 0..4 {
        let given = design.growth_channels(width, GROWTH);
        let mut body = vec![Linear::init(init, &format!("dense{i}"), width, given)?];
        body.extend(design.norm_and_activation(init, &format!("dense{i}.norm"), given)?);
        layers.extend(design.dense_block_layer(body));
        width += GROWTH;
    }
    layers.push(Linear::init_readout(init, "out", width, outputs)?);
    Ok(layers)
}
