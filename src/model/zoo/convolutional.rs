//! Networks for images.

use super::Design;
use crate::error::Result;
use crate::layers::{
    AveragePool, Bias, Conv2d, Flatten, GlobalAveragePool, LayerInit, LayerKind, Linear, Residual,
    Unflatten,
};

/// Seven convolutions with a bias; the parameters are `layers.0.weight` to `layers.7.bias`.
pub(super) fn cnn(
    design: &Design,
    init: &mut LayerInit,
    input: [usize; 3],
    outputs: usize,
) -> Result<Vec<LayerKind>> {
    let channels = [input[0], 16, 16, 16, 32, 32, 64, 64];
    let mut layers = vec![Unflatten(input.to_vec()).into()];
    for (i, pair) in channels.windows(2).enumerate() {
        let stride = if i == 3 || i == 5 { 2 } else { 1 };
        let name = format!("layers.{i}");
        layers.push(Conv2d::init(
            init,
            &name,
            [pair[0], pair[1]],
            3,
            stride,
            Bias::Uniform,
        )?);
        layers.extend(design.norm_and_activation(init, &format!("norms.{i}"), pair[1])?);
    }
    layers.extend([GlobalAveragePool.into(), Flatten.into()]);
    layers.push(Linear::init_readout(init, "layers.7", 64, outputs)?);
    Ok(layers)
}

/// One stage of residual blocks per width; each but the first halves the image.
pub(super) fn resnet(
    design: &Design,
    init: &mut LayerInit,
    input: [usize; 3],
    outputs: usize,
    widths: &[usize],
    blocks: usize,
) -> Result<Vec<LayerKind>> {
    let mut channels = widths[0];
    let mut layers = vec![Unflatten(input.to_vec()).into()];
    layers.push(Conv2d::init(
        init,
        "stem.conv",
        [input[0], channels],
        3,
        1,
        Bias::None,
    )?);
    layers.extend(design.norm_and_activation(init, "stem.norm", channels)?);
    for (stage, width) in widths.iter().copied().enumerate() {
        for block in 0..blocks {
            let name = |part: &str| format!("stage{stage}.block{block}.{part}");
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let mut body = vec![Conv2d::init(
                init,
                &name("conv1"),
                [channels, width],
                3,
                stride,
                Bias::None,
            )?];
            body.extend(design.norm_and_activation(init, &name("norm1"), width)?);
            body.push(Conv2d::init(
                init,
                &name("conv2"),
                [width, width],
                3,
                1,
                Bias::None,
            )?);
            body.extend(design.norm(init, &name("norm2"), width)?);
            let mut shortcut = Vec::new();
            if design.shortcuts && stride > 1 {
                let name = |part: &str| name(&format!("shortcut.{part}"));
                shortcut.push(Conv2d::init(
                    init,
                    &name("conv"),
                    [channels, width],
                    1,
                    stride,
                    Bias::None,
                )?);
                shortcut.extend(design.norm(init, &name("norm"), width)?);
            }
            match design.shortcuts {
                true => layers.push(Residual { body, shortcut }.into()),
                false => layers.extend(body),
            }
            layers.push(design.activation.into());
            channels = width;
        }
    }
    layers.extend([GlobalAveragePool.into(), Flatten.into()]);
    layers.push(Linear::init_readout(init, "out", channels, outputs)?);
    Ok(layers)
}

/// Three dense blocks; between them, a 1 × 1 convolution halves the channels and average pooling the image.
pub(super) fn densenet(
    design: &Design,
    init: &mut LayerInit,
    input: [usize; 3],
    outputs: usize,
) -> Result<Vec<LayerKind>> {
    const GROWTH: usize = 12;
    let mut channels = 16;
    let mut layers = vec![Unflatten(input.to_vec()).into()];
    layers.push(Conv2d::init(
        init,
        "stem.conv",
        [input[0], channels],
        3,
        1,
        Bias::None,
    )?);
    for block in 0..3 {
        for layer in 0..4 {
            let name = |part: &str| format!("block{block}.layer{layer}.{part}");
            let mut body = design.norm_and_activation(init, &name("norm"), channels)?;
            let given = design.growth_channels(channels, GROWTH);
            body.push(Conv2d::init(
                init,
                &name("conv"),
                [channels, given],
                3,
                1,
                Bias::None,
            )?);
            layers.extend(design.dense_block_layer(body));
            channels += GROWTH;
        }
        if block < 2 {
            let name = |part: &str| format!("transition{block}.{part}");
            layers.extend(design.norm_and_activation(init, &name("norm"), channels)?);
            layers.push(Conv2d::init(
                init,
                &name("conv"),
                [channels, channels / 2],
                1,
                1,
                Bias::None,
            )?);
            layers.push(AveragePool::new(2, 2).into());
            channels /= 2;
        }
    }
    layers.extend(design.norm_and_activation(init, "norm", channels)?);
    layers.extend([GlobalAveragePool.into(), Flatten.into()]);
    layers.push(Linear::init_readout(init, "out", channels, outputs)?);
    Ok(layers)
}
