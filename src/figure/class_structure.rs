//! Eigenvalues of the Gauss–Newton matrix and of its class and cross-class part.

use plotly::common::{DashType, Line, Marker, MarkerSymbol, Mode};
use plotly::layout::Legend;
use plotly::{Plot, Scatter};

use super::palette::{BLUE, GREEN, INK, PURPLE};
use super::{Figure, axis, error_bars, layout, log_axis};
use crate::landscape::ClassStructureReport;
use crate::spectral::Bracket;

/// Eigenvalues of the Gauss–Newton matrix and of its class and cross-class part over their ranks, as in Papyan's figures (2020), with
/// error bars; a line at the largest eigenvalue of the within-class part. Omits eigenvalues that are smaller than their error.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = spirals(90, 3, 1.0, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 6, 3], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let found = ClassStructure::default().run(&objective)?;
/// let json = figure::class_structure(&found).json();
/// assert_eq!(json["data"][0]["name"], "Gauss–Newton");
/// assert_eq!(json["data"][1]["x"].as_array().map(Vec::len), Some(3));
/// # Ok::<(), Error>(())
/// ```
pub fn class_structure(report: &ClassStructureReport) -> Figure {
    let title = "Eigenvalues of the Gauss–Newton matrix and of its parts";
    let whole: Vec<Bracket> = report.eigenvalues.iter().map(|e| e.eigenvalue).collect();
    let mut plot = Plot::new();
    for (name, color, symbol, brackets) in [
        ("Gauss–Newton", INK, MarkerSymbol::CircleOpen, &whole),
        (
            "class",
            BLUE,
            MarkerSymbol::Circle,
            &report.class_eigenvalues,
        ),
        (
            "cross-class",
            PURPLE,
            MarkerSymbol::SquareOpen,
            &report.cross_eigenvalues,
        ),
    ] {
        let shown = (1..).zip(brackets).filter(|(_, bracket)| bracket.low > 0.0);
        let (ranks, brackets): (Vec<usize>, Vec<&Bracket>) = shown.unzip();
        if ranks.is_empty() {
            continue;
        }
        let values: Vec<f64> = brackets.iter().map(|bracket| bracket.value).collect();
        let errors = brackets.iter().map(|bracket| bracket.high - bracket.value);
        plot.add_trace(
            Scatter::new(ranks, values)
                .mode(Mode::Markers)
                .name(name)
                .marker(Marker::new().color(color).size(7).symbol(symbol))
                .error_y(error_bars(errors.collect()))
                .hover_template("%{fullData.name}: λ<sub>%{x}</sub> = %{y:.5g}<extra></extra>"),
        );
    }
    let last = whole.len().max(report.cross_eigenvalues.len()).max(2);
    let edge = report.within_largest.value;
    plot.add_trace(
        Scatter::new(vec![1, last], vec![edge, edge])
            .mode(Mode::Lines)
            .name("largest within-class")
            .line(Line::new().color(GREEN).width(2.0).dash(DashType::Dash))
            .hover_template("largest λ within classes = %{y:.5g}"),
    );
    plot.set_layout(
        layout(title)
            .show_legend(true)
            .legend(Legend::new())
            .x_axis(axis("rank"))
            .y_axis(log_axis("eigenvalue λ")),
    );
    Figure::new(&plot, title)
}
