//! Loss along paths between models.

use std::borrow::Borrow;

use plotly::common::{Line as Stroke, Mode, Orientation};
use plotly::layout::Legend;
use plotly::{Plot, Scatter};

use super::palette::SERIES;
use super::{Figure, axis, layout};
use crate::landscape::PathProfile;

/// Loss over t for named paths, such as `paths` of a [`Connectivity`](crate::landscape::Connectivity). Colours repeat after six
/// paths.
///
/// ```
/// use loss_landscape::landscape::Curve;
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let straight = Curve::linear(&model.parameters().to_flat()?, &[0.5; 13])?;
/// let figure = figure::paths(&[("straight", straight.profile(&objective, 5)?)]);
/// assert_eq!(figure.json()["data"][0]["name"], "straight");
/// assert_eq!(figure.json()["data"][0]["x"][4], 1.0);
/// # Ok::<(), Error>(())
/// ```
pub fn paths<N: AsRef<str>, P: Borrow<PathProfile>>(paths: &[(N, P)]) -> Figure {
    let title = "Loss along paths";
    let mut plot = Plot::new();
    for ((name, profile), color) in paths.iter().zip(SERIES.iter().cycle()) {
        let profile = profile.borrow();
        plot.add_trace(
            Scatter::new(profile.times.clone(), profile.losses.clone())
                .mode(Mode::Lines)
                .name(name.as_ref())
                .line(Stroke::new().color(*color).width(2.5))
                .hover_template("t = %{x:.3f}<br>loss = %{y:.5g}"),
        );
    }
    plot.set_layout(
        layout(title)
            .show_legend(true)
            // Below the plot, since a barrier can be anywhere.
            .legend(Legend::new().orientation(Orientation::Horizontal).y(-0.25))
            .x_axis(axis("t, from the first model to the second"))
            .y_axis(axis("loss")),
    );
    Figure::new(&plot, title)
}
