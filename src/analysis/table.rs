//! Results as tables.

use polars::df;
use polars::prelude::{Column, DataFrame};

use super::row::Row;
use super::{Eigenvalue, HessianMetrics, Report};
use crate::error::{Error, Result};
use crate::spectral::Short;

impl Report {
    /// One row per quantity: its value, uncertainty, `low`, `high` and verdict. The uncertainty is the error of an eigenvalue,
    /// the standard error of an estimate or of the test accuracy, and the spread over the starts of the worst case. `low` and
    /// `high` are the ends of a [`SamplingError`](super::SamplingError); they are null for numbers measured on all samples.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        table(&self.rows())
    }

    /// Reports side by side, as numbers: one row per report, one column per quantity, and `± …` columns with their
    /// uncertainties. `low …` and `high …` are the ends of 95 % intervals for all samples.
    ///
    /// # Errors
    /// No reports, or Polars errors.
    pub fn compare<S: AsRef<str>>(reports: &[(S, Report)]) -> Result<DataFrame> {
        check_some(reports)?;
        let rows: Vec<Vec<Row>> = reports.iter().map(|(_, report)| report.rows()).collect();
        let column = |quantity: &str, f: fn(&Row) -> Option<f64>| -> Vec<Option<f64>> {
            let cell = |rows: &Vec<Row>| rows.iter().find(|r| r.quantity == quantity).and_then(f);
            rows.iter().map(cell).collect()
        };
        let names: Vec<&str> = reports.iter().map(|(name, _)| name.as_ref()).collect();
        let sizes: Vec<u64> = reports.iter().map(|r| r.1.parameters as u64).collect();
        let mut columns = vec![
            Column::new("model".into(), names),
            Column::new("parameters".into(), sizes),
        ];
        for quantity in quantities(&rows) {
            columns.push(Column::new(quantity.into(), column(quantity, |r| r.value)));
            let mut push = |mark: &str, found: Vec<Option<f64>>| {
                if found.iter().any(Option::is_some) {
                    columns.push(Column::new(format!("{mark} {quantity}").into(), found));
                }
            };
            push("±", column(quantity, |r| r.uncertainty));
            push("low", column(quantity, |r| r.sampling.map(|s| s.low)));
            push("high", column(quantity, |r| r.sampling.map(|s| s.high)));
        }
        Ok(DataFrame::new(reports.len(), columns)?)
    }

    /// Reports side by side, as text: one row per quantity and one column per report, with value, uncertainty, verdict and,
    /// in brackets, the 95 % interval for all samples.
    ///
    /// ```
    /// # use loss_landscape::analysis::Report;
    /// # use loss_landscape::prelude::*;
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy)?.with_hessian(false);
    /// let report = analyzer.full_analysis()?;
    /// let table = Report::verdicts(&[("first", report.clone()), ("again", report.clone())])?;
    /// assert_eq!(table.width(), 1 + 2); // the quantities' names, then a column for each report
    /// assert_eq!(table.height(), report.table()?.height());
    /// assert!(Report::verdicts(&[("twice", report.clone()), ("twice", report)]).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// No reports, a duplicate name, or Polars errors.
    pub fn verdicts<S: AsRef<str>>(reports: &[(S, Report)]) -> Result<DataFrame> {
        side_by_side(reports, text)
    }

    /// As [`Self::verdicts`] without the verdicts: value, uncertainty and interval.
    ///
    /// # Errors
    /// No reports, a duplicate name, or Polars errors.
    pub fn values<S: AsRef<str>>(reports: &[(S, Report)]) -> Result<DataFrame> {
        side_by_side(reports, value_text)
    }
}

impl HessianMetrics {
    /// One row per eigenvalue, ranked from the largest, and per quantity derived from them, with the columns of
    /// [`Report::table`](super::Report::table). The first and the last eigenvalue have sampling errors.
    ///
    /// # Errors
    /// Polars errors.
    pub fn table(&self) -> Result<DataFrame> {
        let sampling = |rank: usize| match rank {
            1 => self.sampling.map(|s| s.largest),
            _ if rank == self.dim => self.sampling.map(|s| s.smallest),
            _ => None,
        };
        let row = |(rank, found): (usize, &Eigenvalue)| {
            Row::new(format!("eigenvalue {rank}"), found.value)
                .with_uncertainty(found.error)
                .with_sampling(sampling(rank))
        };
        let top = self.largest.iter().enumerate().map(|(i, e)| (i + 1, e));
        let bottom = self.smallest.iter().enumerate();
        let bottom = bottom.map(|(i, e)| (self.dim.saturating_sub(i), e)).rev();
        let bottom = bottom.filter(|(rank, _)| *rank > self.largest.len());
        let rows: Vec<Row> = top
            .chain(bottom)
            .map(row)
            .chain(self.derived_rows())
            .collect();
        table(&rows)
    }
}

fn table(rows: &[Row]) -> Result<DataFrame> {
    let text = |f: fn(&Row) -> &String| rows.iter().map(|r| f(r).as_str()).collect::<Vec<_>>();
    let number = |f: fn(&Row) -> Option<f64>| rows.iter().map(f).collect::<Vec<_>>();
    Ok(df!(
        "quantity" => text(|r| &r.quantity),
        "value" => number(|r| r.value),
        "uncertainty" => number(|r| r.uncertainty),
        "low" => number(|r| r.sampling.map(|s| s.low)),
        "high" => number(|r| r.sampling.map(|s| s.high)),
        "verdict" => text(|r| &r.verdict),
    )?)
}

/// One row per quantity and one column per report.
fn side_by_side<S: AsRef<str>>(
    reports: &[(S, Report)],
    text: fn(&Row) -> String,
) -> Result<DataFrame> {
    check_some(reports)?;
    let rows: Vec<Vec<Row>> = reports.iter().map(|(_, report)| report.rows()).collect();
    let quantities = quantities(&rows);
    let column = |name: &str, cells: Vec<String>| Column::new(name.into(), cells);
    let names = quantities.iter().map(|quantity| (*quantity).to_owned());
    let mut columns = vec![column("quantity", names.collect())];
    for ((name, _), rows) in reports.iter().zip(&rows) {
        let row = |quantity: &&str| rows.iter().find(|row| row.quantity == *quantity);
        let cells = quantities
            .iter()
            .map(|q| row(q).map(text).unwrap_or_default());
        columns.push(column(name.as_ref(), cells.collect()));
    }
    Ok(DataFrame::new(quantities.len(), columns)?)
}

fn check_some<S>(reports: &[(S, Report)]) -> Result<()> {
    match reports {
        [] => Err(Error::invalid(
            "there are no reports to compare: give at least one",
        )),
        _ => Ok(()),
    }
}

/// Of all reports, each once.
fn quantities(rows: &[Vec<Row>]) -> Vec<&str> {
    let mut quantities: Vec<&str> = Vec::new();
    for row in rows.iter().flatten() {
        if !quantities.contains(&row.quantity.as_str()) {
            quantities.push(&row.quantity);
        }
    }
    quantities
}

/// `value ± uncertainty [low, high]: verdict`, without the parts that are missing.
fn text(row: &Row) -> String {
    let verdict = match row.verdict.as_str() {
        "" => String::new(),
        words => format!(": {words}"),
    };
    format!("{}{verdict}", value_text(row))
}

/// `value ± uncertainty [low, high]`, without the parts that are missing.
fn value_text(row: &Row) -> String {
    let value = row.value.map_or("—".into(), |x| format!("{:.3}", Short(x)));
    let error = row.uncertainty.filter(|x| *x != 0.0);
    let error = error.map_or(String::new(), |x| format!(" ± {:.1}", Short(x)));
    let interval = row.sampling.map_or(String::new(), |s| {
        format!(" [{:.3}, {:.3}]", Short(s.low), Short(s.high))
    });
    format!("{value}{error}{interval}")
}
