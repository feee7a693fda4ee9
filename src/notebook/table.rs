//! [`Table`]: rows and columns, as text and as HTML.

use std::fmt::Write;

use super::Bundle;
use crate::error::counted;

/// Maximum number of rows; longer tables show half from each end.
const MAX_ROWS: usize = 40;

/// A table of which the first and last rows are shown.
///
/// The HTML has no colours, so that it suits light and dark themes.
pub(super) struct Table {
    height: usize,
    columns: Vec<Column>,
}

struct Column {
    title: String,
    align: Align,
    cells: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Align {
    Left,
    Right,
}

impl Table {
    pub(super) fn new(height: usize) -> Self {
        Self {
            height,
            columns: Vec::new(),
        }
    }

    fn head(&self) -> usize {
        match self.height {
            0..=MAX_ROWS => self.height,
            _ => MAX_ROWS / 2,
        }
    }

    fn num_hidden(&self) -> usize {
        self.height.saturating_sub(MAX_ROWS)
    }

    /// Indices of the rows that are shown.
    pub(super) fn rows(&self) -> impl Iterator<Item = usize> + use<> {
        let head = self.head();
        (0..head).chain(head + self.num_hidden()..self.height)
    }

    /// Adds a column with one cell per [shown row](Self::rows).
    pub(super) fn with_column(
        mut self,
        title: impl Into<String>,
        align: Align,
        cells: Vec<String>,
    ) -> Self {
        self.columns.push(Column {
            title: title.into(),
            align,
            cells,
        });
        self
    }

    /// Adds a column with one cell per row, of which [some](Self::rows) are shown.
    pub(super) fn with_cells(
        self,
        title: impl Into<String>,
        align: Align,
        cells: &[impl ToString],
    ) -> Self {
        let shown = self.rows().map(|i| cells[i].to_string()).collect();
        self.with_column(title, align, shown)
    }

    pub(super) fn bundle(&self) -> Bundle {
        Bundle::text(self.text()).with("text/html", self.html())
    }

    fn gap(&self) -> String {
        format!("… {} …", counted(self.num_hidden(), "more row"))
    }

    fn text(&self) -> String {
        let width = |column: &Column| {
            let cells = column.cells.iter().chain([&column.title]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = self.columns.iter().map(width).collect();
        let line = |cell: &dyn Fn(&Column) -> String| {
            let cells = self.columns.iter().zip(&widths).map(|(column, &width)| {
                let cell = cell(column);
                match column.align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                }
            });
            let cells: Vec<_> = cells.collect();
            cells.join("  ").trim_end().to_owned()
        };
        let mut lines = vec![line(&|column| column.title.clone())];
        for (i, row) in self.rows().enumerate() {
            if i == self.head() && row > i {
                lines.push(self.gap());
            }
            lines.push(line(&|column| column.cells[i].clone()));
        }
        lines.join("\n")
    }

    pub(super) fn html(&self) -> String {
        let mut html = String::from("<table>\n<thead><tr>");
        for column in &self.columns {
            html.push_str(&cell("th", column.align, &column.title));
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for (i, row) in self.rows().enumerate() {
            if i == self.head() && row > i {
                let (width, gap) = (self.columns.len(), self.gap());
                let _ = writeln!(html, r#"<tr><td colspan="{width}">{gap}</td></tr>"#);
            }
            html.push_str("<tr>");
            for column in &self.columns {
                html.push_str(&cell("td", column.align, &column.cells[i]));
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody>\n</table>");
        html
    }
}

fn cell(tag: &str, align: Align, text: &str) -> String {
    let align = match align {
        Align::Left => "left",
        Align::Right => "right",
    };
    format!(
        r#"<{tag} style="text-align: {align}">{}</{tag}>"#,
        escape(text)
    )
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rows: usize) -> Table {
        let table = Table::new(rows);
        let rows: Vec<usize> = table.rows().collect();
        table
            .with_column(
                "name",
                Align::Left,
                rows.iter().map(|i| format!("<{i}>")).collect(),
            )
            .with_column(
                "n",
                Align::Right,
                rows.iter().map(usize::to_string).collect(),
            )
    }

    #[test]
    fn columns_are_aligned() {
        let text = names(12).text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["name   n", "<0>    0"]);
        assert_eq!(lines[12], "<11>  11");
    }

    #[test]
    fn html_is_escaped_and_titles_stand_over_their_columns() {
        let html = names(1).html();
        assert_eq!(
            html,
            "<table>\n<thead><tr><th style=\"text-align: left\">name</th>\
             <th style=\"text-align: right\">n</th></tr></thead>\n<tbody>\n\
             <tr><td style=\"text-align: left\">&lt;0&gt;</td><td style=\"text-align: right\">0</td></tr>\n\
             </tbody>\n</table>"
        );
    }

    #[test]
    fn long_tables_show_both_ends() {
        assert_eq!(names(40).html().matches("<tr>").count(), 41);
        assert!(!names(40).text().contains("more rows"));
        for rows in [41, 100_000] {
            let table = names(rows);
            let gap = format!("… {} …", counted(rows - 40, "more row"));
            assert_eq!(table.html().matches("<tr>").count(), 42);
            assert!(table.html().contains(&gap));
            let text = table.text();
            let lines: Vec<_> = text.lines().map(str::trim_end).collect();
            assert_eq!(lines.len(), 42);
            assert!(lines[20].starts_with("<19>"));
            assert_eq!(lines[21], gap);
            assert!(lines[41].starts_with(&format!("<{}>", rows - 1)));
        }
        assert_eq!(names(0).text(), "name  n");
    }
}
