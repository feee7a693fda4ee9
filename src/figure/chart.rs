//! [`Chart`]: line charts of any data.

use std::borrow::Borrow;

use plotly::common::{DashType, Line as Stroke, Marker, MarkerSymbol, Mode, Orientation};
use plotly::layout::{Axis, Legend};
use plotly::{Plot, Scatter};

use super::palette::SERIES;
use super::{Figure, axis, error_bars, layout, log_axis};

/// A chart of several series, for results without a figure of their own. Measured series are lines or points, each with its own
/// colour; points after the first series are rings. Expected series are dashed, in the colour of the series before.
///
/// Omits points that are not finite, and points ≤ 0 on a logarithmic axis.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let (steps, distances) = ([1.0, 4.0, 16.0], [1.0, 2.3, 3.8]);
/// let chart = figure::Chart::new("A random walk", "steps", "distance")
///     .points("simulated", std::iter::zip(&steps, &distances))
///     .errors(&[0.1, 0.2, 0.4])
///     .expected("√k", steps.map(|k| (k, k.sqrt())))
///     .log_x()
///     .log_y();
/// assert_eq!(chart.figure().title(), "A random walk");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    title: String,
    x: Scale,
    y: Scale,
    series: Vec<Series>,
}

#[derive(Clone, Debug, PartialEq)]
struct Scale {
    title: String,
    logarithmic: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Series {
    name: String,
    kind: Kind,
    /// x, y and the error of y.
    points: Vec<(f64, f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Line,
    Points,
    Expected,
    /// A constant y.
    Level,
}

impl Chart {
    /// An empty chart with a title and axis titles.
    pub fn new(title: &str, x: &str, y: &str) -> Self {
        let scale = |title: &str| Scale {
            title: title.into(),
            logarithmic: false,
        };
        Self {
            title: title.into(),
            x: scale(x),
            y: scale(y),
            series: Vec::new(),
        }
    }

    /// Makes the x axis logarithmic.
    #[must_use]
    pub fn log_x(mut self) -> Self {
        self.x.logarithmic = true;
        self
    }

    /// Makes the y axis logarithmic.
    #[must_use]
    pub fn log_y(mut self) -> Self {
        self.y.logarithmic = true;
        self
    }

    /// Adds a line through the points (x, y).
    #[must_use]
    pub fn line<X: Borrow<f64>, Y: Borrow<f64>>(
        self,
        name: &str,
        points: impl IntoIterator<Item = (X, Y)>,
    ) -> Self {
        self.with(name, Kind::Line, points)
    }

    /// Adds the points (x, y) as dots.
    #[must_use]
    pub fn points<X: Borrow<f64>, Y: Borrow<f64>>(
        self,
        name: &str,
        points: impl IntoIterator<Item = (X, Y)>,
    ) -> Self {
        self.with(name, Kind::Points, points)
    }

    /// Adds a line through estimates (x, y, error of y).
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let measured = [(0.0, 5.0, 0.1), (1.0, 6.0, 0.2)];
    /// let chart = figure::Chart::new("Traces", "step", "tr H").estimates("measured", measured);
    /// let json = chart.level("limit", 7.0).figure().json();
    /// assert_eq!(json["data"][0]["error_y"]["array"][1], 0.2);
    /// assert_eq!(json["data"][1]["y"][0], 7.0);
    /// ```
    #[must_use]
    pub fn estimates(
        mut self,
        name: &str,
        points: impl IntoIterator<Item = (f64, f64, f64)>,
    ) -> Self {
        self.series.push(Series {
            name: name.into(),
            kind: Kind::Line,
            points: points.into_iter().collect(),
        });
        self
    }

    /// Adds a dashed line through the points (x, y), in the colour of the series before.
    #[must_use]
    pub fn expected<X: Borrow<f64>, Y: Borrow<f64>>(
        self,
        name: &str,
        points: impl IntoIterator<Item = (X, Y)>,
    ) -> Self {
        self.with(name, Kind::Expected, points)
    }

    /// Adds a dashed horizontal line at y, in the colour of the series before.
    #[must_use]
    pub fn level(self, name: &str, y: f64) -> Self {
        self.with(name, Kind::Level, [(f64::NAN, y)])
    }

    /// Adds error bars ± `errors` of y to the last series.
    #[must_use]
    pub fn errors(mut self, errors: &[f64]) -> Self {
        if let Some(last) = self.series.last_mut() {
            for (point, error) in last.points.iter_mut().zip(errors) {
                point.2 = *error;
            }
        }
        self
    }

    fn with<X: Borrow<f64>, Y: Borrow<f64>>(
        self,
        name: &str,
        kind: Kind,
        points: impl IntoIterator<Item = (X, Y)>,
    ) -> Self {
        let exact = |(x, y): (X, Y)| (*x.borrow(), *y.borrow(), 0.0);
        let mut chart = self.estimates(name, points.into_iter().map(exact));
        if let Some(series) = chart.series.last_mut() {
            series.kind = kind;
        }
        chart
    }

    /// Builds the figure.
    pub fn figure(&self) -> Figure {
        let mut plot = Plot::new();
        let mut measured = 0usize;
        for series in &self.series {
            let expected = matches!(series.kind, Kind::Expected | Kind::Level);
            measured += usize::from(!expected);
            plot.add_trace(self.trace(series, measured.saturating_sub(1)));
        }
        let (x, y) = (self.x.axis(), self.y.axis());
        plot.set_layout(
            layout(&self.title)
                .show_legend(true)
                .legend(Legend::new().orientation(Orientation::Horizontal).y(-0.25))
                .x_axis(x)
                .y_axis(y),
        );
        Figure::new(&plot, &self.title)
    }

    /// The trace of a series. `measured` is the number of measured series before it.
    fn trace(&self, series: &Series, measured: usize) -> Box<Scatter<f64, f64>> {
        let color = SERIES[measured % SERIES.len()];
        let mut points = series.points.clone();
        if series.kind == Kind::Level {
            let xs = self.series.iter().flat_map(|s| &s.points).map(|p| p.0);
            let xs = xs.filter(|x| self.x.shows(*x));
            let ends = xs.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], x| {
                [low.min(x), high.max(x)]
            });
            points = ends.map(|x| (x, series.points[0].1, 0.0)).to_vec();
        }
        points.retain(|(x, y, _)| self.x.shows(*x) && self.y.shows(*y));
        let dots = points.len() <= 30;
        let errors: Vec<f64> = points.iter().map(|p| p.2).collect();
        let (x, y) = points.iter().map(|p| (p.0, p.1)).unzip();
        let name = &series.name;
        let trace = Scatter::new(x, y)
            .name(name)
            .hover_template(format!("{name}<br>%{{x:.5g}}: %{{y:.5g}}<extra></extra>"));
        let trace = match errors.iter().any(|error| *error > 0.0) {
            true => trace.error_y(error_bars(errors)),
            false => trace,
        };
        let stroke = Stroke::new().color(color).width(2.0);
        match series.kind {
            Kind::Line => trace.line(stroke).mode(match dots {
                true => Mode::LinesMarkers,
                false => Mode::Lines,
            }),
            Kind::Points => {
                let size = if dots { 8 } else { 4 };
                // Rings do not hide the dots of another series.
                let symbol = match measured {
                    0 => MarkerSymbol::Circle,
                    _ => MarkerSymbol::CircleOpen,
                };
                let marker = Marker::new().color(color).size(size).symbol(symbol);
                trace.mode(Mode::Markers).marker(marker)
            }
            Kind::Expected | Kind::Level => trace
                .mode(Mode::Lines)
                .line(stroke.width(1.5).dash(DashType::Dash)),
        }
    }
}

impl Scale {
    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (!self.logarithmic || value > 0.0)
    }

    fn axis(&self) -> Axis {
        match self.logarithmic {
            true => log_axis(&self.title),
            false => axis(&self.title),
        }
    }
}
