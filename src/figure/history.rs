//! A training.

use plotly::common::{Line as Stroke, Mode};
use plotly::{Plot, Scatter};

use super::{BLUE, Figure, ORANGE, axis, layout, log_axis};
use crate::train::{Epoch, History};

/// Training and test loss over the passes, on a logarithmic axis.
pub fn history(history: &History) -> Figure {
    let title = "Training";
    let mode = match history.epochs.len() {
        0..=30 => Mode::LinesMarkers,
        _ => Mode::Lines,
    };
    let mut plot = Plot::new();
    let losses = |value: fn(&Epoch) -> f64| history.epochs.iter().map(value).collect();
    for (name, color, losses) in [
        ("training loss", BLUE, losses(|e| e.train_loss)),
        ("test loss", ORANGE, losses(|e| e.test_loss)),
    ] {
        let epochs = history.epochs.iter().map(|e| e.epoch).collect();
        plot.add_trace(
            Scatter::new(epochs, losses)
                .mode(mode.clone())
                .name(name)
                .line(Stroke::new().color(color).width(2.5))
                .hover_template("pass %{x}<br>loss = %{y:.5g}<extra></extra>"),
        );
    }
    plot.set_layout(
        layout(title)
            .x_axis(axis("passes over the training data"))
            .y_axis(log_axis("loss")),
    );
    Figure::new(plot, title)
}
