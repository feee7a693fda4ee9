//! Networks for tokens.

use super::Design;
use crate::error::{Error, Result};
use crate::layers::{
    Embedding, LayerInit, LayerKind, LayerNorm, Linear, PositionEmbedding, SelfAttention,
};

/// Sizes of a GPT.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) width: usize,
    pub(super) context: usize,
    /// Number of tokens.
    pub(super) tokens: usize,
}

/// Standard deviation of the initial weights.
const DEVIATION: f64 = 0.02;

/// Token and position embeddings, blocks h ← h + attention(norm(h)) and h ← h + MLP(norm(h)), a norm and a linear layer
/// without bias. The initial weights are those of nanoGPT: normal, and smaller by √(2 · layers) where a block ends.
pub(super) fn gpt(design: &Design, init: &mut LayerInit, sizes: Sizes) -> Result<Vec<LayerKind>> {
    let Sizes {
        layers,
        heads,
        width,
        context,
        tokens,
    } = sizes;
    if layers == 0 || heads == 0 || context == 0 || width == 0 || !width.is_multiple_of(heads) {
        return Err(Error::invalid(format!(
            "`gpt` needs layers, heads, width and context above 0, and heads that divide the width, not {layers}, {heads}, {width} and {context}"
        )));
    }
    let last = DEVIATION / (2.0 * layers as f64).sqrt();
    let mut network: Vec<LayerKind> = vec![
        Embedding::new(init.normal("tokens.weight".into(), &[tokens, width], DEVIATION)?).into(),
        PositionEmbedding::new(init.normal(
            "positions.weight".into(),
            &[context, width],
            DEVIATION,
        )?)
        .into(),
    ];
    for block in 0..layers {
        let name = |part: &str| format!("blocks.{block}.{part}");
        let attention = SelfAttention::new(&name("attention"), heads).with_causal(true);
        for layer in [&attention.query, &attention.key, &attention.value] {
            layer.init_normal(init, [width, width], DEVIATION)?;
        }
        attention.output.init_normal(init, [width, width], last)?;
        let body = vec![norm(init, &name("norm1"), width)?, attention.into()];
        network.extend(design.residual_block(body));

        let [up, down] = ["up", "down"].map(|part| Linear::named(&name("mlp"), part));
        up.init_normal(init, [width, 4 * width], DEVIATION)?;
        down.init_normal(init, [4 * width, width], last)?;
        let body = vec![
            norm(init, &name("norm2"), width)?,
            up.into(),
            design.activation.into(),
            down.into(),
        ];
        network.extend(design.residual_block(body));
    }
    network.push(norm(init, "norm", width)?);
    let out = Linear::without_bias("out.weight");
    out.init_normal(init, [width, tokens], DEVIATION)?;
    network.push(out.into());
    Ok(network)
}

fn norm(init: &mut LayerInit, name: &str, width: usize) -> Result<LayerKind> {
    let weight = init.constant(format!("{name}.weight"), 1.0, width)?;
    let bias = init.constant(format!("{name}.bias"), 0.0, width)?;
    Ok(LayerNorm::new(weight, bias).into())
}
