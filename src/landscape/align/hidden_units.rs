//! [`hidden_units`]: the groups of units that can be permuted, from a model's layers.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{HiddenUnits, UnitAxis};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::layers::Shape;
use crate::layers::units::{FIXED, ParamAxis, UnitGraph};
use crate::model::Model;

/// Groups of hidden units that can be permuted without a change of the model's function on samples like those of `data`: units
/// of dense layers, channels of convolutions, features of a residual stream, heads of attention. The model lists its
/// [layers](Model::layers).
///
/// All layers that write to or read from a residual stream share its group, and the parts of a concatenation are groups of
/// their own (Ainsworth, Hayase and Srinivasa, 2023). Group normalisation divides units into clusters. If its groups cut through
/// the parts of a concatenation, each piece is a group of its own. Units that layers mix in other ways are in no group.
///
/// ```
/// use loss_landscape::landscape::{UnitAxis, align};
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 4, 3, 1], Activation::Tanh, 0, &Device::Cpu)?;
/// let groups = align::hidden_units(&model, &data)?;
/// assert_eq!(groups.len(), 2);
/// assert_eq!(groups[1].kinds[0][0], UnitAxis::new("layers.1.weight", 0));
///
/// // Four residual blocks of two layers: one stream, and the units within each block.
/// let model = Architecture::Residual.build(&[2], 1, 0, &Device::Cpu)?;
/// let groups = align::hidden_units(&model, &data)?;
/// assert_eq!(groups.len(), 5);
/// assert!(groups[0].kinds[0].contains(&UnitAxis::new("block3.linear2.weight", 0)));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// A model that does not list its layers; samples that do not fit it.
pub fn hidden_units(model: &impl Model, data: &Dataset) -> Result<Vec<HiddenUnits>> {
    let found = find_units(model, data).map_err(|reason| {
        Error::invalid(format!(
            "{reason}: list the axes that run along the hidden units with HiddenUnits, and use match_weights"
        ))
    })?;
    Ok(found.groups)
}

/// Groups of units, and why others are in none.
pub(in crate::landscape) struct Found {
    pub(in crate::landscape) groups: Vec<HiddenUnits>,
    pub(in crate::landscape) reasons: Vec<String>,
}

/// As [`hidden_units`]; an error is the reason why there are none.
pub(in crate::landscape) fn find_units(
    model: &impl Model,
    data: &Dataset,
) -> std::result::Result<Found, String> {
    let layers = model.layers().ok_or_else(|| {
        let reason = model.without_layers();
        reason.unwrap_or_else(|| "the model does not list its layers".into())
    })?;
    let input = Shape::new(&data.inputs().dims()[1..]);
    let graph = UnitGraph::build(&layers, model.parameters(), input);
    let graph = graph.map_err(|misfit| misfit.to_string())?;
    Ok(Sets::new(&graph).groups(graph.reasons.clone()))
}

/// A division into groups, and the number of a group.
type Group = (usize, usize);

/// Where a unit occurs.
#[derive(Default)]
struct Occurrences {
    /// Index of each axis of a parameter, and the unit's entries.
    axes: Vec<(usize, Vec<usize>)>,
    /// Index of each value between layers, and the number of the unit's entries.
    values: Vec<(usize, usize)>,
    /// The unit's group in each division.
    groups: Vec<Group>,
}

/// What units that can be exchanged have in common, apart from the numbers of their groups: the number of entries along each axis and
/// in each value, and the divisions into groups.
type Role = (Vec<(usize, usize)>, Vec<(usize, usize)>, Vec<usize>);

/// Units of one role and of the same groups: any two of them can be exchanged.
struct Set {
    /// Index of the role.
    role: usize,
    groups: Vec<Group>,
    units: Vec<usize>,
}

/// All units of a model.
struct Sets<'a> {
    axes: &'a [ParamAxis],
    occurrences: BTreeMap<usize, Occurrences>,
    sets: Vec<Set>,
}

impl<'a> Sets<'a> {
    fn new(graph: &'a UnitGraph) -> Self {
        let mut occurrences: BTreeMap<usize, Occurrences> = BTreeMap::new();
        for (a, axis) in graph.axes.iter().enumerate() {
            for (entry, unit) in axis.units.iter().enumerate() {
                let axes = &mut occurrences.entry(*unit).or_default().axes;
                match axes.last_mut() {
                    Some((last, entries)) if *last == a => entries.push(entry),
                    _ => axes.push((a, vec![entry])),
                }
            }
        }
        for (v, units) in graph.values.iter().enumerate() {
            for unit in units {
                let values = &mut occurrences.entry(*unit).or_default().values;
                match values.last_mut() {
                    Some((last, count)) if *last == v => *count += 1,
                    _ => values.push((v, 1)),
                }
            }
        }
        for member in &graph.members {
            let groups = &mut occurrences.entry(member.unit).or_default().groups;
            groups.push((member.division, member.group));
        }
        let mut roles: HashMap<Role, usize> = HashMap::new();
        let mut known: HashMap<(usize, &[Group]), usize> = HashMap::new();
        let mut sets: Vec<Set> = Vec::new();
        for (unit, found) in occurrences.iter().filter(|(unit, _)| **unit != FIXED) {
            let axes = found.axes.iter().map(|(a, entries)| (*a, entries.len()));
            let divisions = found.groups.iter().map(|(division, _)| *division);
            let role = (axes.collect(), found.values.clone(), divisions.collect());
            let next = roles.len();
            let role = *roles.entry(role).or_insert(next);
            let set = *known.entry((role, &found.groups)).or_insert_with(|| {
                sets.push(Set {
                    role,
                    groups: found.groups.clone(),
                    units: Vec::new(),
                });
                sets.len() - 1
            });
            sets[set].units.push(*unit);
        }
        Self {
            axes: &graph.axes,
            occurrences,
            sets,
        }
    }

    /// The groups in the order of the layers.
    fn groups(&self, mut reasons: Vec<String>) -> Found {
        let mut groups = Vec::new();
        for clusters in self.clusters() {
            let first = &clusters[0];
            let joined = clusters.len() > 1;
            let kinds = (0..first.len()).map(|kind| {
                let units = clusters
                    .iter()
                    .flat_map(|sets| &self.sets[sets[kind]].units);
                self.unit_axes(&units.copied().collect::<Vec<_>>())
            });
            if joined
                && let Ok(kinds) = kinds.collect::<std::result::Result<Vec<_>, _>>()
                && check_axes(&kinds).is_ok()
            {
                let place = self.sets[first[0]].units[0];
                let units = HiddenUnits {
                    kinds,
                    clusters: clusters.len(),
                };
                groups.push((place, units));
                continue;
            }
            for set in clusters.iter().flatten() {
                let units = &self.sets[*set].units;
                if units.len() < 2 {
                    continue;
                }
                let described = self.unit_axes(units).and_then(|axes| {
                    let described = HiddenUnits::new(axes);
                    check_axes(&described.kinds).map(|()| described)
                });
                match described {
                    Ok(described) => groups.push((units[0], described)),
                    Err(reason) => reasons.push(reason),
                }
            }
        }
        groups.sort_by_key(|(place, _)| *place);
        reasons.sort();
        reasons.dedup();
        Found {
            groups: groups.into_iter().map(|(_, units)| units).collect(),
            reasons,
        }
    }

    /// Lists of clusters that can be exchanged with each other. A cluster is a list of sets, with equal roles at equal positions.
    fn clusters(&self) -> Vec<Vec<Vec<usize>>> {
        let fixed = self.occurrences.get(&FIXED);
        let fixed: HashSet<_> = fixed.iter().flat_map(|found| &found.groups).collect();
        let mut lists: Vec<Vec<Vec<usize>>> = Vec::new();
        let mut known = HashMap::new();
        for mut cluster in self.linked() {
            cluster.sort_by_key(|set| self.sets[*set].role);
            let mut pairs = cluster.windows(2);
            let distinct = pairs.all(|pair| self.sets[pair[0]].role != self.sets[pair[1]].role);
            let mut groups = cluster.iter().flat_map(|set| &self.sets[*set].groups);
            if !distinct || groups.any(|group| fixed.contains(group)) {
                lists.push(vec![cluster]);
                continue;
            }
            match known.get(&self.pattern(&cluster)) {
                Some(list) => {
                    let list: &mut Vec<_> = &mut lists[*list];
                    list.push(cluster);
                }
                None => {
                    known.insert(self.pattern(&cluster), lists.len());
                    lists.push(vec![cluster]);
                }
            }
        }
        lists
    }

    /// Sets that are linked by a common group.
    fn linked(&self) -> Vec<Vec<usize>> {
        let mut clusters: Vec<(HashSet<Group>, Vec<usize>)> = Vec::new();
        for (i, set) in self.sets.iter().enumerate() {
            let mut joined = (set.groups.iter().copied().collect::<HashSet<_>>(), vec![i]);
            let (linked, others): (Vec<_>, Vec<_>) = clusters
                .into_iter()
                .partition(|(groups, _)| set.groups.iter().any(|group| groups.contains(group)));
            for (groups, sets) in linked {
                joined.0.extend(groups);
                joined.1.extend(sets);
            }
            clusters = others;
            clusters.push(joined);
        }
        let mut clusters: Vec<_> = clusters.into_iter().map(|(_, sets)| sets).collect();
        clusters.sort_by_key(|sets| sets.iter().min().copied());
        clusters
    }

    /// Role, number of units and groups of each set, with the groups numbered as they occur.
    fn pattern(&self, cluster: &[usize]) -> Vec<(usize, usize, Vec<Group>)> {
        let mut numbered: Vec<Group> = Vec::new();
        let mut pattern = Vec::with_capacity(cluster.len());
        for set in cluster {
            let set = &self.sets[*set];
            let mut groups = Vec::with_capacity(set.groups.len());
            for group in &set.groups {
                let known = numbered.iter().position(|other| other == group);
                let number = known.unwrap_or_else(|| {
                    numbered.push(*group);
                    numbered.len() - 1
                });
                groups.push((group.0, number));
            }
            pattern.push((set.role, set.units.len(), groups));
        }
        pattern
    }

    /// The axes along units of one role.
    fn unit_axes(&self, units: &[usize]) -> std::result::Result<Vec<UnitAxis>, String> {
        let mut axes = Vec::new();
        for (i, (axis, _)) in self.occurrences[&units[0]].axes.iter().enumerate() {
            let entries = units
                .iter()
                .map(|unit| &self.occurrences[unit].axes[i].1[..]);
            let entries: Vec<&[usize]> = entries.collect();
            let ParamAxis {
                name,
                axis,
                units: all,
            } = &self.axes[*axis];
            let mut done = 0;
            while done < entries[0].len() {
                let start = entries[0][done];
                // The longest block of neighbouring entries of each unit, with the blocks next to each other.
                let fits = |block: &usize| {
                    let of_unit = |(u, entries): (usize, &&[usize])| {
                        let entries = entries[done..done + block].iter().enumerate();
                        let mut entries = entries.map(|(i, entry)| (i + start + u * block, *entry));
                        entries.all(|(expected, entry)| expected == entry)
                    };
                    entries.iter().enumerate().all(of_unit)
                };
                let block = (1..=entries[0].len() - done).rev().find(fits);
                let block = block.ok_or_else(|| {
                    format!("the units along axis {axis} of `{name}` are not neighbours")
                })?;
                let range = start..start + block * units.len();
                let whole = range == (0..all.len());
                axes.push(UnitAxis {
                    parameter: name.clone(),
                    axis: *axis,
                    block,
                    range: (!whole).then_some(range),
                });
                done += block;
            }
        }
        Ok(axes)
    }
}

/// Checks that no parameter has two axes along the units.
fn check_axes(kinds: &[Vec<UnitAxis>]) -> std::result::Result<(), String> {
    let axes: Vec<&UnitAxis> = kinds.iter().flatten().collect();
    let other = |a: &UnitAxis, b: &UnitAxis| a.parameter == b.parameter && a.axis != b.axis;
    match axes.iter().find(|a| axes.iter().any(|b| other(a, b))) {
        None => Ok(()),
        Some(axis) => Err(format!(
            "`{}` reads and writes the same units, which no linear assignment can match",
            axis.parameter
        )),
    }
}
