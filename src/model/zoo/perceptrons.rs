//! Networks for vectors.

use super::Design;
use crate::error::Result;
use crate::model::LayerKind;
use crate::model::making::Making;

/// Hidden layers of these widths, one after another.
pub(super) fn plain(
    design: &Design,
    made: &mut Making,
    [inputs, outputs]: [usize; 2],
    widths: &[usize],
) -> Result<Vec<LayerKind>> {
    let mut layers = Vec::new();
    let mut width = inputs;
    for (i, next) in widths.iter().enumerate() {
        layers.push(made.linear(&format!("hidden{i}"), width, *next)?);
        layers.extend(design.after(made, &format!("hidden{i}.norm"), *next)?);
        width = *next;
    }
    layers.push(made.readout("out", width, outputs)?);
    Ok(layers)
}

/// h ← h + W₂ φ(W₁ φ(h) + b₁) + b₂, four times.
pub(super) fn residual(
    design: &Design,
    made: &mut Making,
    [inputs, outputs]: [usize; 2],
) -> Result<Vec<LayerKind>> {
    const WIDTH: usize = 64;
    let mut layers = vec![made.linear("stem", inputs, WIDTH)?];
    for block in 0..4 {
        let name = |part: &str| format!("block{block}.{part}");
        let mut body = design.after(made, &name("norm1"), WIDTH)?;
        body.push(made.linear(&name("linear1"), WIDTH, WIDTH)?);
        body.extend(design.after(made, &name("norm2"), WIDTH)?);
        body.push(made.linear(&name("linear2"), WIDTH, WIDTH)?);
        layers.extend(design.around(body));
    }
    layers.extend(design.after(made, "norm", WIDTH)?);
    layers.push(made.readout("out", WIDTH, outputs)?);
    Ok(layers)
}

/// h ← (h, φ(W h + b)), four times.
pub(super) fn dense(
    design: &Design,
    made: &mut Making,
    [inputs, outputs]: [usize; 2],
) -> Result<Vec<LayerKind>> {
    const GROWTH: usize = 32;
    let mut layers = Vec::new();
    let mut width = inputs;
    for i in 0..4 {
        let given = design.grown(width, GROWTH);
        let mut body = vec![made.linear(&format!("dense{i}"), width, given)?];
        body.extend(design.after(made, &format!("dense{i}.norm"), given)?);
        layers.extend(design.beside(body));
        width += GROWTH;
    }
    layers.push(made.readout("out", width, outputs)?);
    Ok(layers)
}
