//! Training history.

use plotly::common::{Line as Stroke, Mode};
use plotly::{Plot, Scatter};

use super::palette::{BLUE, PURPLE};
use super::{Figure, axis, layout, log_axis};
use crate::train::{Epoch, History};

/// Training and test loss over the epochs, on a logarithmic axis.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let history = Trainer::adam(0.01)
///     .with_batch_size(20)
///     .with_epochs(4)
///     .fit(&model, &data, &data)?;
/// let json = figure::history(&history).json();
/// assert_eq!(json["data"][1]["name"], "test loss");
/// assert_eq!(json["data"][1]["y"].as_array().map(Vec::len), Some(4));
/// # Ok::<(), Error>(())
/// ```
pub fn history(history: &History) -> Figure {
    let title = "Training and test loss";
    let mode = match history.epochs.len() {
        0..=30 => Mode::LinesMarkers,
        _ => Mode::Lines,
    };
    let mut plot = Plot::new();
    let losses = |value: fn(&Epoch) -> f64| history.epochs.iter().map(value).collect();
    for (name, color, losses) in [
        ("training loss", BLUE, losses(|e| e.train_loss)),
        ("test loss", PURPLE, losses(|e| e.test_loss)),
    ] {
        let epochs = history.epochs.iter().map(|e| e.epoch).collect();
        plot.add_trace(
            Scatter::new(epochs, losses)
                .mode(mode.clone())
                .name(name)
                .line(Stroke::new().color(color).width(2.5))
                .hover_template("epoch %{x}<br>%{fullData.name} = %{y:.5g}<extra></extra>"),
        );
    }
    plot.set_layout(layout(title).x_axis(axis("epoch")).y_axis(log_axis("loss")));
    Figure::new(&plot, title)
}
