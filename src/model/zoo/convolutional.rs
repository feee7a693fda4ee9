//! Networks for images.

use super::Design;
use crate::error::Result;
use crate::model::LayerKind;
use crate::model::making::Making;

/// Seven convolutions with a bias; parameters are `layers.0.weight` to `layers.7.bias`.
pub(super) fn cnn(
    design: &Design,
    made: &mut Making,
    input: [usize; 3],
    outputs: usize,
) -> Result<Vec<LayerKind>> {
    let channels = [input[0], 16, 16, 16, 32, 32, 64, 64];
    let mut layers = vec![LayerKind::Unflatten(input)];
    for (i, pair) in channels.windows(2).enumerate() {
        let stride = if i == 3 || i == 5 { 2 } else { 1 };
        let name = format!("layers.{i}");
        layers.push(made.conv(&name, [pair[0], pair[1]], 3, stride, true)?);
        layers.extend(design.after(made, &format!("norms.{i}"), pair[1])?);
    }
    layers.push(LayerKind::GlobalAveragePool);
    layers.push(made.readout("layers.7", 64, outputs)?);
    Ok(layers)
}

/// A stage of residual blocks for each width; each but the first halves the image.
pub(super) fn resnet(
    design: &Design,
    made: &mut Making,
    input: [usize; 3],
    outputs: usize,
    widths: &[usize],
    blocks: usize,
) -> Result<Vec<LayerKind>> {
    let mut channels = widths[0];
    let mut layers = vec![LayerKind::Unflatten(input)];
    layers.push(made.conv("stem.conv", [input[0], channels], 3, 1, false)?);
    layers.extend(design.after(made, "stem.norm", channels)?);
    for (stage, width) in widths.iter().copied().enumerate() {
        for block in 0..blocks {
            let name = |part: &str| format!("stage{stage}.block{block}.{part}");
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let mut body = vec![made.conv(&name("conv1"), [channels, width], 3, stride, false)?];
            body.extend(design.after(made, &name("norm1"), width)?);
            body.push(made.conv(&name("conv2"), [width, width], 3, 1, false)?);
            body.extend(design.norm(made, &name("norm2"), width)?);
            let mut shortcut = Vec::new();
            if design.shortcuts && stride > 1 {
                let name = |part: &str| name(&format!("shortcut.{part}"));
                shortcut.push(made.conv(&name("conv"), [channels, width], 1, stride, false)?);
                shortcut.extend(design.norm(made, &name("norm"), width)?);
            }
            match design.shortcuts {
                true => layers.push(LayerKind::Residual { body, shortcut }),
                false => layers.extend(body),
            }
            layers.push(LayerKind::Activation(design.activation));
            channels = width;
        }
    }
    layers.push(LayerKind::GlobalAveragePool);
    layers.push(made.readout("out", channels, outputs)?);
    Ok(layers)
}

/// Three dense blocks; between them a 1 × 1 convolution halves the channels, and average pooling the image.
pub(super) fn densenet(
    design: &Design,
    made: &mut Making,
    input: [usize; 3],
    outputs: usize,
) -> Result<Vec<LayerKind>> {
    const GROWTH: usize = 12;
    let mut channels = 16;
    let mut layers = vec![LayerKind::Unflatten(input)];
    layers.push(made.conv("stem.conv", [input[0], channels], 3, 1, false)?);
    for block in 0..3 {
        for layer in 0..4 {
            let name = |part: &str| format!("block{block}.layer{layer}.{part}");
            let mut body = design.after(made, &name("norm"), channels)?;
            let given = design.grown(channels, GROWTH);
            body.push(made.conv(&name("conv"), [channels, given], 3, 1, false)?);
            layers.extend(design.beside(body));
            channels += GROWTH;
        }
        if block < 2 {
            let name = |part: &str| format!("transition{block}.{part}");
            layers.extend(design.after(made, &name("norm"), channels)?);
            layers.push(made.conv(&name("conv"), [channels, channels / 2], 1, 1, false)?);
            layers.push(LayerKind::AveragePool {
                kernel: 2,
                stride: 2,
            });
            channels /= 2;
        }
    }
    layers.extend(design.after(made, "norm", channels)?);
    layers.push(LayerKind::GlobalAveragePool);
    layers.push(made.readout("out", channels, outputs)?);
    Ok(layers)
}
