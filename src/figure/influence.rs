//! Influence of training samples.

use plotly::common::{Marker, Mode};
use plotly::{Plot, Scatter};

use super::palette::{BLUE, INK, VERMILION};
use super::{Figure, axis, layout, residual_texts};
use crate::landscape::InfluenceReport;

/// Maximum number of samples at each end of the ranking.
const SHOWN: usize = 1_000;

/// The influence of each training sample over its rank, the most helpful first: negative values, of samples that lower the test
/// loss, and positive ones have their own colours. Shows the first and last 1,000 of more than 2,000 samples. Hover texts state the
/// index of the sample and the bound on the numerical error.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let found = Influence::default().run(&objective, &data)?;
/// let json = figure::influence(&found).json();
/// let counts = [0, 1].map(|i| json["data"][i]["y"].as_array().map_or(0, Vec::len));
/// assert_eq!(counts[0] + counts[1], 60);
/// # Ok::<(), Error>(())
/// ```
pub fn influence(report: &InfluenceReport) -> Figure {
    let title = "Influence of each training sample on the test loss";
    let ranking = report.ranking();
    let count = ranking.len();
    let shown = ranking.iter().enumerate();
    let shown = shown.filter(|(rank, _)| *rank < SHOWN || rank + SHOWN >= count);
    let shown: Vec<(usize, usize)> = shown.map(|(rank, i)| (rank + 1, *i)).collect();
    let mut plot = Plot::new();
    for (name, color, negative) in [
        ("lowers the test loss", VERMILION, true),
        ("raises the test loss", BLUE, false),
    ] {
        let side = shown.iter().copied();
        let side = side.filter(|(_, i)| (report.values[*i] < 0.0) == negative);
        let (ranks, samples): (Vec<usize>, Vec<usize>) = side.unzip();
        let errors: Vec<f64> = samples.iter().map(|i| report.errors[*i]).collect();
        let texts = std::iter::zip(&samples, residual_texts(&errors));
        let texts = texts.map(|(i, error)| format!("training sample {i}, error at most {error}"));
        plot.add_trace(
            Scatter::new(ranks, samples.iter().map(|i| report.values[*i]).collect())
                .mode(Mode::Markers)
                .name(name)
                .marker(Marker::new().color(color).size(5))
                .text_array(texts.collect())
                .hover_template("%{text}<br>rank %{x}: %{y:.4g}<extra></extra>"),
        );
    }
    plot.set_layout(
        layout(title)
            .show_legend(true)
            .x_axis(axis("rank, from the most helpful sample"))
            .y_axis(axis("change of the test loss if counted once more").zero_line_color(INK)),
    );
    Figure::new(&plot, title)
}
