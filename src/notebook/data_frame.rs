//! polars tables, and results as such tables.

use polars::prelude::DataFrame;

use super::numbers::significant;
use super::table::{Align, Table, escape};
use super::{Bundle, Show};
use crate::analysis::{HessianMetrics, Report};
use crate::embedding::{Comparison, Pca};
use crate::error::{Result, counted};
use crate::landscape::{
    CentralFlowReport, Connectivity, Evolution, Line, ModifiedLoss, NoiseReport, PacBayesBound,
    PathProfile, Plane, Projection, StabilityReport, StatisticsSource,
};
use crate::spectral::{BlockSpectra, DensityCurve, JsDistances, PowerResult, Spectrum};
use crate::sweep::SweepReport;
use crate::tables::cell_text;
use crate::train::History;

impl Show for DataFrame {
    fn bundle(&self) -> Result<Bundle> {
        with_notes(self, &[])
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

/// A table, followed by lines of text.
fn with_notes(table: &DataFrame, notes: &[String]) -> Result<Bundle> {
    let (mut text, mut html) = (table.to_string(), html(table)?);
    for note in notes {
        text += &format!("\n{note}");
        html += &format!("<p>{}</p>", escape(note));
    }
    Ok(Bundle::text(text).with("text/html", html))
}

macro_rules! show_as_table {
    ($($type:ty: $notes:expr;)+) => {
        $(impl Show for $type {
            fn bundle(&self) -> Result<Bundle> {
                let notes: fn(&Self) -> Vec<String> = $notes;
                with_notes(&self.table()?, &notes(self))
            }

            fn inline(&self) -> Result<String> {
                self.table()?.inline()
            }
        })+
    };
}
show_as_table! {
    BlockSpectra: |x| x.outside_line().into_iter().collect();
    CentralFlowReport: |_| vec![];
    Comparison: |_| vec![];
    Connectivity: |x| x.notes();
    DensityCurve: |_| vec![];
    Evolution: |x| statistics(x.statistics);
    HessianMetrics: |_| vec![];
    History: |_| vec![];
    JsDistances: |x| vec![x.to_string()];
    Line: |x| statistics(x.statistics);
    ModifiedLoss: |_| vec![];
    NoiseReport: |_| vec![];
    PacBayesBound: |_| vec![];
    PathProfile: |x| [vec![barrier(x)], statistics(x.statistics)].concat();
    Pca: |_| vec![];
    Plane: |x| statistics(x.statistics);
    PowerResult: |x| unconverged(x.converged, x.values.len());
    Projection: |x| statistics(x.statistics);
    StabilityReport: |x| x.notes();
    Spectrum: |x| unconverged(x.converged, x.products);
    SweepReport: |_| vec![];
}

/// How batch normalisation was computed, if the model has any.
fn statistics(source: StatisticsSource) -> Vec<String> {
    match source {
        StatisticsSource::None => vec![],
        source => vec![source.to_string()],
    }
}

fn unconverged(converged: bool, products: usize) -> Vec<String> {
    match converged {
        true => vec![],
        false => vec![format!(
            "not converged after {}",
            counted(products, "product")
        )],
    }
}

fn barrier(path: &PathProfile) -> String {
    format!(
        "barrier {} at t = {}: {}",
        significant(path.barrier_height, 5),
        significant(path.barrier_time, 5),
        path.verdict()
    )
}

/// HTML table with right-aligned numbers of five significant digits.
fn html(frame: &DataFrame) -> Result<String> {
    let mut table = Table::new(frame.height());
    for column in frame.columns() {
        let align = match column.dtype().is_primitive_numeric() {
            true => Align::Right,
            false => Align::Left,
        };
        let cells = table.rows().map(|row| Ok(cell_text(&column.get(row)?)));
        let cells = cells.collect::<Result<Vec<_>>>()?;
        table = table.with_column(column.name().to_string(), align, cells);
    }
    Ok(table.html())
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use polars::df;

    use super::*;
    use crate::operator::Dense;

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
    fn notes_stand_below_the_table() {
        let path = PathProfile {
            times: vec![0.0, 1.0],
            losses: vec![1.0, 3.0],
            accuracies: None,
            barrier_height: 2.0,
            barrier_error: 0.0,
            barrier_time: 0.5,
            barrier_interval: [0.0, 1.0],
            accuracy_at_barrier: None,
            excess: 2.0,
            connectivity_score: 1.0 / 3.0,
            path_norm: 1.0,
            statistics: StatisticsSource::Model,
        };
        let note = format!("barrier 2.0 at t = 0.5: {}", path.verdict());
        let bundle = path.bundle().unwrap();
        let text = bundle.get("text/plain").unwrap();
        assert!(text.ends_with(&format!("\n{note}\n{}", path.statistics)));
        let html = bundle.get("text/html").unwrap();
        let notes = format!("<p>{note}</p><p>{}</p>", path.statistics);
        assert!(html.ends_with(&format!("</table>{notes}")), "{html}");

        let matrix = Dense::new(array![[2.0, 0.0], [0.0, 1.0]]).unwrap();
        let mut spectrum = matrix.eigen().unwrap();
        assert!(
            spectrum
                .bundle()
                .unwrap()
                .get("text/html")
                .unwrap()
                .ends_with("</table>")
        );
        (spectrum.converged, spectrum.products) = (false, 1);
        let bundle = spectrum.bundle().unwrap();
        assert!(
            bundle
                .get("text/plain")
                .unwrap()
                .ends_with("\nnot converged after 1 product")
        );
    }

    #[test]
    fn long_tables_show_both_ends() {
        let frame = df!("x" => (0..100_000).collect::<Vec<i32>>()).unwrap();
        let html = html(&frame).unwrap();
        assert!(html.contains("… 99960 more rows …") && html.contains(">99999<"));
        assert_eq!(html.matches("<tr>").count(), 42);
    }
}
