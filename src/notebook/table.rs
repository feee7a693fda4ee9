//! HTML tables.

use std::fmt::Write;

use polars::df;
use polars::prelude::{AnyValue, DataFrame};

use super::{Bundle, Show, escape};
use crate::analysis::{HessianMetrics, Report};
use crate::embedding::{Comparison, Pca};
use crate::error::{Result, counted};
use crate::landscape::{
    Connectivity, Evolution, Line, ModifiedLoss, NoiseReport, PacBayesBound, PathProfile, Plane,
    Projection, StatisticsSource,
};
use crate::spectral::{DensityCurve, Participation, PowerResult, Spectrum};
use crate::train::History;

impl Show for DataFrame {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(self.to_string()).with("text/html", html(self)?))
    }
}

impl Show for Report {
    fn bundle(&self) -> Result<Bundle> {
        let table = html(&self.table()?)?;
        Ok(Bundle::text(self.to_string()).with("text/html", table))
    }
}

impl Show for Vec<Participation> {
    fn bundle(&self) -> Result<Bundle> {
        df!(
            "rank" => self.iter().map(|p| p.rank as u64).collect::<Vec<_>>(),
            "block" => self.iter().map(|p| p.block.clone()).collect::<Vec<_>>(),
            "share" => self.iter().map(|p| p.share).collect::<Vec<_>>(),
            "entries" => self.iter().map(|p| p.entries).collect::<Vec<_>>(),
        )?
        .bundle()
    }
}

macro_rules! show_as_table {
    ($($type:ty),+) => {
        $(impl Show for $type {
            fn bundle(&self) -> Result<Bundle> {
                self.table()?.bundle()
            }
        })+
    };
}
show_as_table!(
    History,
    Spectrum,
    PowerResult,
    NoiseReport,
    ModifiedLoss,
    PacBayesBound,
    DensityCurve,
    Connectivity,
    HessianMetrics,
    Pca,
    Comparison
);

/// A table, followed by how batch normalisation was computed, if any.
macro_rules! show_as_table_with_statistics {
    ($($type:ty),+) => {
        $(impl Show for $type {
            fn bundle(&self) -> Result<Bundle> {
                let table = self.table()?;
                if self.statistics == StatisticsSource::None {
                    return table.bundle();
                }
                let (text, html) = (table.to_string(), html(&table)?);
                Ok(Bundle::text(format!("{text}\n{}", self.statistics))
                    .with("text/html", format!("{html}<p>{}</p>", self.statistics)))
            }
        })+
    };
}
show_as_table_with_statistics!(Line, Plane, Projection, PathProfile, Evolution);

/// Maximum number of rows; longer tables show half from each end.
const MAX_ROWS: usize = 40;

/// HTML table with right-aligned numbers of five significant digits.
fn html(table: &DataFrame) -> Result<String> {
    let mut html = String::from("<table>\n<thead><tr>");
    for column in table.columns() {
        let _ = write!(html, "<th>{}</th>", escape(column.name()));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    let rows = table.height();
    let (head, tail) = match rows {
        0..=MAX_ROWS => (rows, rows),
        _ => (MAX_ROWS / 2, rows - MAX_ROWS / 2),
    };
    for row in (0..head).chain(tail..rows) {
        if row == tail && tail > head {
            let _ = writeln!(
                html,
                r#"<tr><td colspan="{}">… {} …</td></tr>"#,
                table.width(),
                counted(tail - head, "more row")
            );
        }
        html.push_str("<tr>");
        for column in table.columns() {
            let (text, number) = cell(&column.get(row)?);
            let side = if number { "right" } else { "left" };
            let _ = write!(
                html,
                r#"<td style="text-align: {side}">{}</td>"#,
                escape(&text)
            );
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>");
    Ok(html)
}

fn cell(value: &AnyValue) -> (String, bool) {
    match value {
        AnyValue::Null => (String::new(), false),
        AnyValue::Float32(x) => (digits(f64::from(*x)), true),
        AnyValue::Float64(x) => (digits(*x), true),
        AnyValue::String(text) => ((*text).to_owned(), false),
        other => (other.to_string(), other.is_primitive_numeric()),
    }
}

/// Five significant digits, scientific where plain notation would be long.
fn digits(x: f64) -> String {
    let magnitude = x.abs();
    if x == 0.0 || !x.is_finite() {
        format!("{x}")
    } else if !(1e-4..1e6).contains(&magnitude) {
        format!("{x:.3e}")
    } else {
        let before_point = magnitude.log10().floor() as i32 + 1;
        format!("{x:.*}", (5 - before_point).clamp(0, 8) as usize)
    }
}
