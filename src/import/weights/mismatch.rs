//! The error of weights that do not fit a model: a table of the model's tensors beside the file's.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Entry, Pairs, last};
use crate::error::{Error, counted};

/// A tensor of the model, of the file, or both side by side.
struct Row<'a> {
    ours: Option<Entry<'a>>,
    theirs: Option<Entry<'a>>,
}

/// The error of pairs that are incomplete or of different shapes.
pub(super) fn mismatch(path: &Path, ours: &[Entry], theirs: &[Entry], pairs: &Pairs) -> Error {
    let used: BTreeSet<usize> = pairs.iter().flatten().copied().collect();
    let mut left: Vec<Entry> = (0..theirs.len())
        .filter(|i| !used.contains(i))
        .map(|i| theirs[i])
        .collect();
    let extra = left.clone();
    let (mut rows, mut missing, mut misshapen) = (Vec::new(), Vec::new(), 0);
    for (ours, pair) in ours.iter().zip(pairs) {
        let theirs = match pair {
            Some(pair) if theirs[*pair].shape == ours.shape => continue,
            Some(pair) => {
                misshapen += 1;
                Some(theirs[*pair])
            }
            None => {
                missing.push(*ours);
                likely(ours, &left).map(|i| left.remove(i))
            }
        };
        rows.push(Row {
            ours: Some(*ours),
            theirs,
        });
    }
    rows.extend(left.into_iter().map(|theirs| Row {
        ours: None,
        theirs: Some(theirs),
    }));

    let names = |entries: &[Entry]| match entries {
        [only] => format!(" (`{}`)", only.name),
        _ => String::new(),
    };
    let problems = [
        (
            missing.len(),
            "of the model has no partner in the file",
            names(&missing),
        ),
        (
            extra.len(),
            "of the file has no partner in the model",
            names(&extra),
        ),
        (misshapen, "has another shape", String::new()),
    ];
    let problems = problems.into_iter().filter(|(count, ..)| *count > 0);
    let problems = problems.map(|(count, problem, names)| {
        let problem = match count {
            1 => problem.to_owned(),
            _ => problem.replace("has", "have"),
        };
        format!("{}{names} {problem}", counted(count, "tensor"))
    });
    let problems: Vec<_> = problems.collect();
    let hint = hint(ours, theirs, &missing, &extra, &rows);
    Error::file(
        path,
        format!("does not fit the model: {}", problems.join(", ")),
        format!("{hint}.\n{}", table(&rows)),
    )
}

/// Index of the tensor in `left` that is most likely the partner.
fn likely(ours: &Entry, left: &[Entry]) -> Option<usize> {
    let find = |is_partner: &dyn Fn(&Entry) -> bool| left.iter().position(is_partner);
    let has_end = |theirs: &Entry| last(theirs.name) == last(ours.name);
    find(&|theirs| theirs.name == ours.name)
        .or_else(|| find(&|theirs| has_end(theirs) && theirs.shape == ours.shape))
        .or_else(|| find(&|theirs| has_end(theirs) && is_transposed(ours, theirs)))
        .or_else(|| find(&|theirs| theirs.shape == ours.shape))
}

fn is_transposed(ours: &Entry, theirs: &Entry) -> bool {
    theirs.shape != ours.shape && theirs.shape.iter().rev().eq(ours.shape)
}

/// What to do.
fn hint(
    ours: &[Entry],
    theirs: &[Entry],
    missing: &[Entry],
    extra: &[Entry],
    rows: &[Row],
) -> &'static str {
    let ends_in = |entries: &[Entry], end: &str| entries.iter().any(|e| last(e.name) == end);
    let is_module = |entries: &[Entry], parts: [&str; 2]| {
        entries
            .iter()
            .any(|e| parts.iter().all(|part| e.name.contains(part)))
    };
    let pairs = rows.iter().filter_map(|row| row.ours.zip(row.theirs));
    let mut pairs = pairs.filter(|(ours, theirs)| ours.shape != theirs.shape);
    if is_module(extra, ["denselayer", ".conv2."]) {
        "The file's dense layers have two convolutions, as torchvision's DenseNets have, the model's have one: these weights \
         belong to another network"
    } else if is_module(extra, ["layer", ".conv3."]) {
        "The file's residual blocks have three convolutions, as ResNet-50 and deeper ones have, the model's have two: these \
         weights belong to another network"
    } else if pairs
        .clone()
        .any(|(ours, theirs)| ours.name == "stem.conv.weight" && theirs.shape.ends_with(&[7, 7]))
    {
        "The file's network begins with a 7 × 7 convolution and a pooling, as torchvision's for large images do, the model with a \
         3 × 3 convolution: give weights of a network for small images"
    } else if ends_in(extra, "running_mean") && !ends_in(ours, "running_mean") {
        "The file has batch normalisation, the model has not: build the model with it (--norm batch, or Norm::Batch)"
    } else if ends_in(missing, "running_mean") && !ends_in(theirs, "running_mean") {
        "The file has no running statistics of batch normalisation: save the whole state dict, or build the model without batch \
         normalisation"
    } else if pairs
        .clone()
        .any(|(ours, theirs)| is_transposed(&ours, &theirs))
    {
        "Transpose the tensors of the file that are marked"
    } else if pairs.next().is_some() {
        "Build the model with the sizes of the file"
    } else {
        "Give a map of the names (--weights-map FILE, or Matching::with_map), or match equal shapes in their order \
         (--weights-by-order, or Matching::with_by_order)"
    }
}

/// Maximum number of rows.
const MAX_ROWS: usize = 20;

fn table(rows: &[Row]) -> String {
    let cell = |entry: &Option<Entry>| match entry {
        Some(entry) => format!("{} {:?}", entry.name, entry.shape),
        None => "-".to_owned(),
    };
    let mut lines = vec![["model".to_owned(), "file".to_owned(), String::new()]];
    lines.extend(rows.iter().take(MAX_ROWS).map(|row| {
        let transposed = row.ours.zip(row.theirs);
        let transposed = transposed.is_some_and(|(ours, theirs)| is_transposed(&ours, &theirs));
        let mark = if transposed { "transposed?" } else { "" };
        [cell(&row.ours), cell(&row.theirs), mark.to_owned()]
    }));
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let [first, second] = [width(0), width(1)];
    let lines = lines.iter().map(|[ours, theirs, mark]| {
        let line = format!("  {ours:first$}  {theirs:second$}  {mark}");
        line.trim_end().to_owned()
    });
    let mut lines: Vec<String> = lines.collect();
    if let Some(more) = rows.len().checked_sub(MAX_ROWS).filter(|more| *more > 0) {
        lines.push(format!("  and {more} more"));
    }
    lines.join("\n")
}
