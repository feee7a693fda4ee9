//! [`Group`]: hidden units as entries of θ and of the running statistics.

use std::ops::Range;

use super::{HiddenUnits, UnitAxis};
use crate::error::{Error, Result, counted};
use crate::parameters::Parameters;

/// A group of units.
pub(super) struct Group {
    pub(super) kinds: Vec<Kind>,
    pub(super) clusters: usize,
}

/// Units of one kind.
pub(super) struct Kind {
    /// Number of units.
    pub(super) units: usize,
    /// Their entries in θ.
    pub(super) theta: Vec<Strip>,
    /// Their entries in the vector of running statistics.
    pub(super) statistics: Vec<Strip>,
}

/// Entries along an axis, unit by unit.
pub(super) struct Strip {
    /// Index of the first entry.
    start: usize,
    /// Number of times that the axis is repeated in the vector, `stride` entries apart.
    outer: usize,
    stride: usize,
    units: usize,
    /// Number of neighbouring entries of a unit.
    length: usize,
}

impl Strip {
    /// Indices of a unit's entries, in a fixed order.
    pub(super) fn entries(&self, unit: usize) -> impl Iterator<Item = usize> {
        let first = self.start + unit * self.length;
        let starts = (0..self.outer).map(move |o| first + o * self.stride);
        starts.flat_map(|start| start..start + self.length)
    }

    /// Indices of all units' entries.
    pub(super) fn all_entries(&self) -> impl Iterator<Item = usize> {
        (0..self.units).flat_map(|unit| self.entries(unit))
    }
}

/// Moves unit p\[i\] to position i along these axes.
pub(super) fn permute<T: Copy>(values: &mut [T], strips: &[Strip], permutation: &[usize]) {
    for strip in strips {
        let moved = permutation.iter().flat_map(|unit| strip.entries(*unit));
        let moved: Vec<T> = moved.map(|from| values[from]).collect();
        strip
            .all_entries()
            .zip(moved)
            .for_each(|(to, value)| values[to] = value);
    }
}

/// An axis of a parameter, and the entries of it that belong to units.
type TakenAxis<'a> = (&'a str, usize, Range<usize>);

/// Validates the description of each group and finds its axes.
pub(super) fn find_groups(parameters: &Parameters, groups: &[HiddenUnits]) -> Result<Vec<Group>> {
    let mut taken = Vec::new();
    let found = groups.iter().enumerate().map(|(g, group)| {
        if group.kinds.is_empty() {
            return Err(without_axes(g));
        }
        let kinds = group.kinds.iter();
        let kinds = kinds.map(|axes| find_kind(parameters, (g, group), axes, &mut taken));
        Ok(Group {
            kinds: kinds.collect::<Result<_>>()?,
            clusters: group.clusters,
        })
    });
    found.collect()
}

fn without_axes(g: usize) -> Error {
    Error::invalid(format!("group {g} of units has no axes"))
}

/// Finds the axes along one kind of units of group `g`, and adds them to those that are taken.
fn find_kind<'a>(
    parameters: &Parameters,
    (g, group): (usize, &HiddenUnits),
    axes: &'a [UnitAxis],
    taken: &mut Vec<TakenAxis<'a>>,
) -> Result<Kind> {
    let mut kind: Option<Kind> = None;
    for axis in axes {
        let UnitAxis {
            parameter,
            axis: index,
            ..
        } = axis;
        let wrong = |what: String| {
            Error::invalid(format!(
                "axis {index} of `{parameter}` in group {g}: {what}"
            ))
        };
        let (strip, entries, is_statistic) = place(parameters, axis, &wrong)?;
        let overlaps = |(name, other, range): &TakenAxis| {
            name == parameter
                && other == index
                && range.start < entries.end
                && entries.start < range.end
        };
        if taken.iter().any(overlaps) {
            return Err(wrong("it is named twice: an axis has one order".into()));
        }
        let mut others = group.kinds.iter().flatten();
        if others.any(|other| other.parameter == *parameter && other.axis != *index) {
            return Err(wrong(
                "another axis of this parameter runs along the same units, which no linear \
                 assignment can match"
                    .into(),
            ));
        }
        taken.push((parameter, *index, entries));
        let kind = kind.get_or_insert_with(|| Kind {
            units: strip.units,
            theta: Vec::new(),
            statistics: Vec::new(),
        });
        if strip.units != kind.units {
            return Err(wrong(format!(
                "it has {}, but the group's first axis has {}",
                counted(strip.units, "unit"),
                kind.units
            )));
        }
        match is_statistic {
            true => kind.statistics.push(strip),
            false => kind.theta.push(strip),
        }
    }
    let kind = kind.ok_or_else(|| without_axes(g))?;
    match group.clusters > 0 && kind.units.is_multiple_of(group.clusters) {
        true => Ok(kind),
        false => Err(Error::invalid(format!(
            "group {g} of {} cannot be divided into {}",
            counted(kind.units, "unit"),
            counted(group.clusters, "cluster")
        ))),
    }
}

/// An axis as a strip, with its entries along the axis, and whether it belongs to a running statistic.
fn place(
    parameters: &Parameters,
    axis: &UnitAxis,
    wrong: &impl Fn(String) -> Error,
) -> Result<(Strip, Range<usize>, bool)> {
    let name = &axis.parameter;
    let (dims, start, is_statistic) = match (parameters.get(name), parameters.statistic(name)) {
        (Ok(var), _) => (var.dims(), parameters.range(name)?.start, false),
        (_, Ok(var)) => {
            let start = parameters.statistic_range(name)?.start - parameters.len();
            (var.dims(), start, true)
        }
        (Err(unknown), _) => return Err(unknown),
    };
    let Some(&len) = dims.get(axis.axis) else {
        return Err(wrong(format!("the parameter has the shape {dims:?}")));
    };
    let entries = axis.range.clone().unwrap_or(0..len);
    if entries.end > len || entries.start >= entries.end {
        return Err(wrong(format!(
            "it has {}, not the range {entries:?}",
            counted(len, "entry")
        )));
    }
    if axis.block == 0 || !entries.len().is_multiple_of(axis.block) {
        return Err(wrong(format!(
            "its {} entries are not a whole number of blocks of {}",
            entries.len(),
            axis.block
        )));
    }
    let inner: usize = dims[axis.axis + 1..].iter().product();
    let strip = Strip {
        start: start + entries.start * inner,
        outer: dims[..axis.axis].iter().product(),
        stride: len * inner,
        units: entries.len() / axis.block,
        length: axis.block * inner,
    };
    Ok((strip, entries, is_statistic))
}
