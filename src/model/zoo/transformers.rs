//! Transformers: a language model and a network for images.

use super::{Design, Norm};
use crate::error::{Error, Result};
use crate::layers::{
    Embedding, LayerInit, LayerKind, LayerNorm, Linear, Patches, PositionEmbedding, PositionMean,
    SelfAttention, Unflatten,
};

/// Sizes of the blocks.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) width: usize,
}

/// Standard deviation of the initial weights.
const DEVIATION: f64 = 0.02;

/// Token and position embeddings, blocks with causal attention, a norm and a linear layer without bias.
pub(super) fn gpt(
    design: &Design,
    init: &mut LayerInit,
    sizes: Sizes,
    context: usize,
    tokens: usize,
) -> Result<Vec<LayerKind>> {
    check(design, sizes, ("context", context))?;
    let width = sizes.width;
    let table = init.normal("tokens.weight".into(), &[tokens, width], DEVIATION)?;
    let mut network: Vec<LayerKind> = vec![Embedding::new(table).into()];
    network.push(positions(init, context, width)?);
    network.extend(blocks(design, init, sizes, true)?);
    network.push(norm(init, "norm", width)?);
    let out = Linear::without_bias("out.weight");
    out.init_normal(init, [width, tokens], DEVIATION)?;
    network.push(out.into());
    Ok(network)
}

/// A linear function of each patch, position embeddings, blocks with attention to all patches, a norm, the mean over the
/// patches and a linear layer.
pub(super) fn vit(
    design: &Design,
    init: &mut LayerInit,
    sizes: Sizes,
    patch: usize,
    image: [usize; 3],
    outputs: usize,
) -> Result<Vec<LayerKind>> {
    check(design, sizes, ("patch", patch))?;
    let [channels, height, width] = image;
    if !height.is_multiple_of(patch) || !width.is_multiple_of(patch) {
        return Err(Error::invalid(format!(
            "`vit` cannot cut images of {height} × {width} pixels into patches of {patch} × {patch}: give a side that divides both"
        )));
    }
    let embedding = Linear::new("patches.weight", "patches.bias");
    let inputs = channels * patch * patch;
    embedding.init_normal(init, [inputs, sizes.width], DEVIATION)?;
    let count = (height / patch) * (width / patch);
    let mut network: Vec<LayerKind> = vec![
        Unflatten(image.to_vec()).into(),
        Patches::new(patch).into(),
        embedding.into(),
        positions(init, count, sizes.width)?,
    ];
    network.extend(blocks(design, init, sizes, false)?);
    network.push(norm(init, "norm", sizes.width)?);
    network.push(PositionMean.into());
    let out = Linear::new("out.weight", "out.bias");
    out.init_normal(init, [sizes.width, outputs], DEVIATION)?;
    network.push(out.into());
    Ok(network)
}

/// Rejects sizes that define no network, and any other normalisation than LayerNorm.
fn check(design: &Design, sizes: Sizes, (name, size): (&str, usize)) -> Result<()> {
    let Sizes {
        layers,
        heads,
        width,
    } = sizes;
    let architecture = design.architecture.name();
    if design.normalization != Norm::None {
        return Err(Error::invalid(format!(
            "`{architecture}` normalises every position by LayerNorm: leave its normalisation at {:?} instead of {:?}",
            Norm::None,
            design.normalization
        )));
    }
    if layers == 0 || heads == 0 || size == 0 || width == 0 || !width.is_multiple_of(heads) {
        return Err(Error::invalid(format!(
            "`{architecture}` needs layers, heads, width and {name} above 0, and heads that divide the width, not {layers}, {heads}, {width} and {size}"
        )));
    }
    Ok(())
}

/// Blocks h ← h + attention(norm(h)) and h ← h + MLP(norm(h)). The initial weights are those of nanoGPT: normal, and smaller by
/// √(2 · layers) where a block ends.
fn blocks(
    design: &Design,
    init: &mut LayerInit,
    sizes: Sizes,
    causal: bool,
) -> Result<Vec<LayerKind>> {
    let Sizes {
        layers,
        heads,
        width,
    } = sizes;
    let last = DEVIATION / (2.0 * layers as f64).sqrt();
    let mut blocks = Vec::new();
    for block in 0..layers {
        let name = |part: &str| format!("blocks.{block}.{part}");
        let attention = SelfAttention::new(&name("attention"), heads).with_causal(causal);
        for layer in [&attention.query, &attention.key, &attention.value] {
            layer.init_normal(init, [width, width], DEVIATION)?;
        }
        attention.output.init_normal(init, [width, width], last)?;
        let body = vec![norm(init, &name("norm1"), width)?, attention.into()];
        blocks.extend(design.residual_block(body));

        let [up, down] = ["up", "down"].map(|part| Linear::named(&name("mlp"), part));
        up.init_normal(init, [width, 4 * width], DEVIATION)?;
        down.init_normal(init, [4 * width, width], last)?;
        let body = vec![
            norm(init, &name("norm2"), width)?,
            up.into(),
            design.activation.into(),
            down.into(),
        ];
        blocks.extend(design.residual_block(body));
    }
    Ok(blocks)
}

fn positions(init: &mut LayerInit, count: usize, width: usize) -> Result<LayerKind> {
    let table = init.normal("positions.weight".into(), &[count, width], DEVIATION)?;
    Ok(PositionEmbedding::new(table).into())
}

fn norm(init: &mut LayerInit, name: &str, width: usize) -> Result<LayerKind> {
    let weight = init.constant(format!("{name}.weight"), 1.0, width)?;
    let bias = init.constant(format!("{name}.bias"), 0.0, width)?;
    Ok(LayerNorm::new(weight, bias).into())
}
