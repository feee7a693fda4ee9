//! polars tables, and results as such tables.

use polars::prelude::{AnyValue, DataFrame};

use super::table::{Align, Table};
use super::{Bundle, Show};
use crate::analysis::{HessianMetrics, Report};
use crate::embedding::{Comparison, Pca};
use crate::error::{Result, counted};
use crate::landscape::{
    Connectivity, Evolution, Line, ModifiedLoss, NoiseReport, PacBayesBound, PathProfile, Plane,
    Projection, StatisticsSource,
};
use crate::spectral::{DensityCurve, PowerResult, Spectrum};
use crate::sweep::SweepReport;
use crate::train::History;

impl Show for DataFrame {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(self.to_string()).with("text/html", html(self)?))
    }

    fn inline(&self) -> Result<String> {
        let (height, width) = self.shape();
        Ok(format!(
            "table of {} and {}",
            counted(height, "row"),
            counted(width, "column")
        ))
    }
}

impl Show for Report {
    fn bundle(&self) -> Result<Bundle> {
        let table = html(&self.table()?)?;
        Ok(Bundle::text(self.to_string()).with("text/html", table))
    }
}

macro_rules! show_as_table {
    ($($type:ty),+) => {
        $(impl Show for $type {
            fn bundle(&self) -> Result<Bundle> {
                self.table()?.bundle()
            }

            fn inline(&self) -> Result<String> {
                self.table()?.inline()
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
    Comparison,
    SweepReport
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

            fn inline(&self) -> Result<String> {
                self.table()?.inline()
            }
        })+
    };
}
show_as_table_with_statistics!(Line, Plane, Projection, PathProfile, Evolution);

/// HTML table with right-aligned numbers of five significant digits.
fn html(frame: &DataFrame) -> Result<String> {
    let mut table = Table::new(frame.height());
    for column in frame.columns() {
        let align = match column.dtype().is_primitive_numeric() {
            true => Align::Right,
            false => Align::Left,
        };
        let cells = table.rows().map(|row| Ok(cell(&column.get(row)?)));
        let cells = cells.collect::<Result<Vec<_>>>()?;
        table = table.with_column(column.name().to_string(), align, cells);
    }
    Ok(table.html())
}

fn cell(value: &AnyValue) -> String {
    match value {
        AnyValue::Null => String::new(),
        AnyValue::Float32(x) => digits(f64::from(*x)),
        AnyValue::Float64(x) => digits(*x),
        AnyValue::String(text) => (*text).to_owned(),
        other => other.to_string(),
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

#[cfg(test)]
mod tests {
    use polars::df;

    use super::*;

    #[test]
    fn html_aligns_and_escapes() {
        let frame = df!("a<" => ["x&y", "z"], "n" => [Some(f64::NAN), None]).unwrap();
        let bundle = frame.bundle().unwrap();
        assert_eq!(
            bundle.get("text/html"),
            Some(
                "<table>\n<thead><tr><th style=\"text-align: left\">a&lt;</th>\
                 <th style=\"text-align: right\">n</th></tr></thead>\n<tbody>\n\
                 <tr><td style=\"text-align: left\">x&amp;y</td><td style=\"text-align: right\">NaN</td></tr>\n\
                 <tr><td style=\"text-align: left\">z</td><td style=\"text-align: right\"></td></tr>\n\
                 </tbody>\n</table>"
            )
        );
        assert_eq!(frame.inline().unwrap(), "table of 2 rows and 2 columns");
    }

    #[test]
    fn long_tables_show_both_ends() {
        let frame = df!("x" => (0..100_000).collect::<Vec<i32>>()).unwrap();
        let html = html(&frame).unwrap();
        assert!(html.contains("… 99960 more rows …") && html.contains(">99999<"));
        assert_eq!(html.matches("<tr>").count(), 42);
    }
}
