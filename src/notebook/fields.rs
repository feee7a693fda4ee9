//! Settings and small results as tables of their fields.
//!
//! Names, order and values of the fields come from the type's [`Debug`], in its form of several lines.

use std::fmt::Debug;
use std::str::Lines;

use candle_core::DType;

use super::lists::{abbreviated, cut, list};
use super::numbers::{DIGITS, LIST_DIGITS, significant};
use super::table::{Align, Table};
use super::{Bundle, Show};
use crate::analysis::{
    Analyzer, Eigenvalue, HessianSampling, NegativeEigenvalues, NewtonDecrement, SamplingError,
    SharpnessMetrics, Subsample,
};
use crate::data::{DataReader, InputNormalization, PublicSet, StoredSamples, Text};
use crate::embedding::{Autoencoder, ComparedEmbedding, Umap};
use crate::error::Result;
use crate::landscape::direction::Normalization;
use crate::landscape::{
    BatchSharpness, CentralFlow, CentralFlowPoint, ClassStructure, CurvatureSnapshot,
    DiagonalPacBayes, EvolutionSettings, ExplainedEigenvalue, Flatness, GradientNoise, Grid,
    HessianDifference, ImplicitBias, Influence, InfluenceSolver, LearningCoefficient,
    NormStatistics, PacBayes, PacBayesRow, PartTraces, PathShape, PathTrainer, Sharpness,
    Stability, StabilityMeasure, StabilityPoint, TopSpace, UnitAxis,
};
use crate::layers::LayerKind;
use crate::model::{Activation, Architecture, Design, Norm};
use crate::objective::{CrossEntropy, Loss, Objective};
use crate::operator::Kfac;
use crate::spectral::{
    BlockSettings, ConjugateGradients, DensitySettings, Following, Lanczos, OutlierTest,
    Participation, PowerIteration, PowerLawSettings, Quadrature, Rank, TailComparison, Trace,
    TraceMethod, Which,
};
use crate::train::{Adam, DecayGroup, Epoch, Sam, Schedule, Sgd, Step, Trainer, Trajectory};

/// A value read from the output of `{:#?}`.
enum Node {
    Leaf(String),
    Struct(String, Vec<(String, Node)>),
    Tuple(String, Vec<Node>),
    List(Vec<Node>),
}

/// The field that stands for those which a `Debug` leaves out.
const LEFT_OUT: &str = "..";

impl Node {
    fn new(value: &impl Debug) -> Self {
        let text = format!("{value:#?}");
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        Self::parse(first, &mut lines)
    }

    /// Parses the value whose first line is `first`, and takes its other lines from `lines`.
    fn parse(first: &str, lines: &mut Lines) -> Self {
        if first == "[" {
            Self::List(Self::parse_items(lines, "]"))
        } else if let Some(name) = first.strip_suffix('(') {
            let mut items = Self::parse_items(lines, ")");
            match &items[..] {
                [_] if name == "Some" => items.remove(0),
                [Self::Struct(inner, _) | Self::Leaf(inner)] if name == inner => items.remove(0),
                _ => Self::Tuple(name.to_owned(), items),
            }
        } else if let Some(name) = first.strip_suffix('{') {
            let mut fields = Vec::new();
            while let Some(line) = next_line(lines, "}") {
                let (field, value) = line.split_once(": ").unwrap_or((line, ""));
                fields.push((field.to_owned(), Self::parse(value, lines)));
            }
            Self::Struct(name.trim_end().to_owned(), fields)
        } else {
            Self::Leaf(first.to_owned())
        }
    }

    fn parse_items(lines: &mut Lines, close: &str) -> Vec<Self> {
        let mut items = Vec::new();
        while let Some(line) = next_line(lines, close) {
            items.push(Self::parse(line, lines));
        }
        items
    }

    /// The value on one line, with at most `digits` significant digits per float.
    fn inline(&self, digits: usize) -> String {
        let inline = |item: &Self| item.inline(digits);
        let join = |items: &[Self]| items.iter().map(inline).collect::<Vec<_>>().join(", ");
        match self {
            Self::Leaf(text) => match text.parse::<f64>() {
                Ok(x) if text.parse::<i128>().is_err() => significant(x, digits),
                _ => cut(text).map_or(text.clone(), |start| format!("{start}…")),
            },
            Self::Struct(name, fields) => {
                let fields = fields.iter().map(|(field, value)| match &field[..] {
                    LEFT_OUT => LEFT_OUT.to_owned(),
                    _ => format!("{field}: {}", inline(value)),
                });
                format!("{name} {{ {} }}", fields.collect::<Vec<_>>().join(", "))
            }
            Self::Tuple(name, items) => format!("{name}({})", join(items)),
            Self::List(items) => abbreviated(items, inline, |_| String::new()),
        }
    }

    /// Fields and their values. Those of a field's own struct follow it, except if some of them are left out.
    fn rows(&self, digits: usize) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        if let Self::Struct(_, fields) = self {
            for (field, value) in fields.iter().filter(|(field, _)| field != LEFT_OUT) {
                match value {
                    Self::Struct(name, inner) if inner.iter().all(|(f, _)| f != LEFT_OUT) => {
                        rows.push((field.clone(), name.clone()));
                        let inner = value.rows(digits).into_iter();
                        rows.extend(inner.map(|(f, value)| (format!("{field}.{f}"), value)));
                    }
                    _ => rows.push((field.clone(), value.inline(digits))),
                }
            }
        }
        rows
    }
}

/// The next line without its indentation and comma, or `None` at the closing bracket.
fn next_line<'a>(lines: &mut Lines<'a>, close: &str) -> Option<&'a str> {
    let line = lines.next()?.trim_start();
    let line = line.strip_suffix(',').unwrap_or(line);
    (line != close).then_some(line)
}

fn inline(value: &impl Debug) -> String {
    Node::new(value).inline(DIGITS)
}

/// A table of fields, or one line for a value without fields.
fn bundle(value: &impl Debug) -> Bundle {
    let node = Node::new(value);
    match &node {
        Node::Struct(name, _) => {
            let (fields, values): (Vec<_>, Vec<_>) = node.rows(DIGITS).into_iter().unzip();
            Table::new(fields.len())
                .with_cells(name, Align::Left, &fields)
                .with_cells("value", Align::Left, &values)
                .bundle()
        }
        _ => Bundle::text(node.inline(DIGITS)),
    }
}

/// A table with a column per field, if all items have the same fields.
fn bundle_list<T: Debug + Show>(items: &[T]) -> Result<Bundle> {
    let mut table = Table::new(items.len());
    let rows: Vec<_> = table
        .rows()
        .map(|i| Node::new(&items[i]).rows(LIST_DIGITS))
        .collect();
    let names = |row: &[(String, String)]| row.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
    let titles = rows.first().map(|row| names(row)).unwrap_or_default();
    if titles.is_empty() || rows.iter().any(|row| names(row) != titles) {
        return Ok(Bundle::text(list(items, ['[', ']'])?));
    }
    for (i, title) in titles.into_iter().enumerate() {
        let cells = rows.iter().map(|row| row[i].1.trim_matches('"').to_owned());
        let cells: Vec<_> = cells.collect();
        let is_number = |cell: &String| cell == "None" || cell.parse::<f64>().is_ok();
        let align = match cells.iter().all(is_number) {
            true => Align::Right,
            false => Align::Left,
        };
        table = table.with_column(title, align, cells);
    }
    Ok(table.bundle())
}

macro_rules! show_fields {
    ($($type:ty),+ $(,)?) => {
        $(impl Show for $type {
            fn bundle(&self) -> Result<Bundle> {
                Ok(bundle(self))
            }

            fn inline(&self) -> Result<String> {
                Ok(inline(self))
            }

            fn bundle_list(items: &[Self]) -> Result<Bundle> {
                bundle_list(items)
            }
        })+
    };
}
show_fields!(
    Activation,
    Adam,
    Analyzer,
    Architecture,
    Autoencoder,
    BatchSharpness,
    BlockSettings,
    CentralFlow,
    CentralFlowPoint,
    ClassStructure,
    ComparedEmbedding,
    ConjugateGradients,
    CrossEntropy,
    CurvatureSnapshot,
    DType,
    DataReader,
    DecayGroup,
    DensitySettings,
    Design,
    Eigenvalue,
    Epoch,
    EvolutionSettings,
    ExplainedEigenvalue,
    Flatness,
    Following,
    GradientNoise,
    Grid,
    HessianDifference,
    HessianSampling,
    ImplicitBias,
    Influence,
    InfluenceSolver,
    InputNormalization,
    Kfac,
    Lanczos,
    LayerKind,
    LearningCoefficient,
    Loss,
    NegativeEigenvalues,
    NewtonDecrement,
    Norm,
    NormStatistics,
    Normalization,
    Objective,
    OutlierTest,
    DiagonalPacBayes,
    PacBayes,
    PacBayesRow,
    PartTraces,
    Participation,
    PathShape,
    PathTrainer,
    PowerIteration,
    PowerLawSettings,
    PublicSet,
    Quadrature,
    Rank,
    Sam,
    SamplingError,
    Schedule,
    Sgd,
    Sharpness,
    SharpnessMetrics,
    Stability,
    StabilityMeasure,
    StabilityPoint,
    Step,
    Subsample,
    TailComparison,
    StoredSamples,
    Text,
    TopSpace,
    Trace,
    TraceMethod,
    Trainer,
    Trajectory,
    Umap,
    UnitAxis,
    Which,
);

#[cfg(feature = "datasets")]
show_fields!(crate::data::ImageFolder);

#[cfg(feature = "figures")]
show_fields!(crate::figure::FigureFormat);

#[cfg(feature = "tables")]
show_fields!(crate::sweep::Sweep, crate::sweep::SweepPoint);

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[derive(Debug)]
    #[expect(dead_code, reason = "Debug alone reads the fields")]
    enum Kind {
        Plain,
        Every { steps: u32, factor: f64 },
        Pair(u8, f64),
    }

    #[derive(Debug)]
    #[expect(dead_code, reason = "Debug alone reads the fields")]
    struct Inner {
        rate: f64,
        name: String,
    }

    #[derive(Debug)]
    #[expect(dead_code, reason = "Debug alone reads the fields")]
    struct Settings {
        inner: Inner,
        optional: Option<Inner>,
        kinds: Vec<Kind>,
        values: Vec<f64>,
        file: Option<PathBuf>,
        none: Option<f64>,
        seed: u64,
        small: f64,
    }

    fn settings() -> Settings {
        let inner = |name: &str| Inner {
            rate: 0.1 + 0.2,
            name: name.to_owned(),
        };
        Settings {
            inner: inner("a: {\n"),
            optional: Some(inner(&"x".repeat(1000))),
            kinds: vec![
                Kind::Plain,
                Kind::Every {
                    steps: 3,
                    factor: 0.5,
                },
                Kind::Pair(1, f64::NAN),
            ],
            values: (0..100).map(f64::from).collect(),
            file: Some("a, b".into()),
            none: None,
            seed: u64::MAX,
            small: 1e-30,
        }
    }

    #[test]
    fn nested_fields_follow_their_struct() {
        let long = format!("\"{}…", "x".repeat(59));
        let expected = [
            ("inner", "Inner"),
            ("inner.rate", "0.3"),
            ("inner.name", r#""a: {\n""#),
            ("optional", "Inner"),
            ("optional.rate", "0.3"),
            ("optional.name", &long),
            (
                "kinds",
                "[Plain, Every { steps: 3, factor: 0.5 }, Pair(1, NaN)]",
            ),
            (
                "values",
                "[0.0, 1.0, 2.0, …, 97.0, 98.0, 99.0] (100 values)",
            ),
            ("file", r#""a, b""#),
            ("none", "None"),
            ("seed", "18446744073709551615"),
            ("small", "1e-30"),
        ];
        let expected = expected.map(|(field, value)| (field.to_owned(), value.to_owned()));
        assert_eq!(Node::new(&settings()).rows(DIGITS), expected);
    }

    fn text(value: impl Show) -> String {
        let bundle = value.bundle().unwrap();
        bundle.get("text/plain").unwrap().to_owned()
    }

    #[test]
    fn settings_are_tables() {
        let bundle = Trainer::adam(0.01).with_sam(0.05).bundle().unwrap();
        let lines: Vec<_> = bundle.get("text/plain").unwrap().lines().collect();
        let words = |i: usize| lines[i].split_whitespace().collect::<Vec<_>>();
        assert_eq!(words(0), ["Trainer", "value"]);
        assert_eq!(words(1), ["optimizer", "Adam"]);
        assert_eq!(words(2), ["optimizer.beta1", "0.9"]);
        let html = bundle.get("text/html").unwrap();
        for row in [["learning_rate", "0.01"], ["sam.radius", "0.05"]] {
            let cells = row.map(|cell| format!("<td style=\"text-align: left\">{cell}</td>"));
            assert!(html.contains(&cells.concat()), "{html}");
        }
        assert!(html.starts_with("<table>"));
        assert!(text(Lanczos::default()).contains("max_basis"));
        assert_eq!(text(Which::BothEnds), "BothEnds");
        assert_eq!(text(PathShape::Chain(3)), "Chain(3)");
        assert_eq!(
            text((1, Sgd::default())),
            "1\n\nSgd       value\nmomentum  0.0\nnesterov  false"
        );
        assert_eq!(
            Sgd::default().inline().unwrap(),
            "Sgd { momentum: 0.0, nesterov: false }"
        );
    }

    #[test]
    fn lists_of_results_are_tables() {
        let error = |standard_error| SamplingError {
            standard_error,
            low: 0.0,
            high: 1.0,
        };
        let table = text(vec![error(0.25), error(f64::NAN)]);
        assert_eq!(
            table,
            "standard_error  low  high\n          0.25  0.0   1.0\n           NaN  0.0   1.0"
        );
        let axes = vec![UnitAxis::new("layers.0.weight", 1); 2];
        assert_eq!(
            text(axes),
            "parameter        axis  block  range\nlayers.0.weight     1      1   None\nlayers.0.weight     1      1   None"
        );
        assert!(text(vec![error(1.0 / 3.0)]).contains("0.333333  0.0"));
        assert_eq!(text(vec![error(0.5); 100_000]).lines().count(), 42);
        assert_eq!(text(Vec::<Sgd>::new()), "[]");
        assert_eq!(
            text([Which::Largest, Which::Smallest]),
            "[Largest, Smallest]"
        );
    }
}
