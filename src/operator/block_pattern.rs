//! Groups of parameters whose names match a pattern.

use std::ops::Range;

use super::blocks::NamedRanges;
use crate::error::{Error, Result};

/// Returns the blocks that `pattern` selects among named ranges, in the order of their first parameters. The documentation of
/// `by_block` of a curvature matrix describes the syntax.
///
/// # Errors
/// A pattern that selects nothing.
pub(super) fn select(
    pattern: &str,
    parameters: &[(String, Range<usize>)],
) -> Result<Vec<NamedRanges>> {
    let patterns: Vec<&str> = pattern.split(',').map(str::trim).collect();
    let mut is_used = vec![false; patterns.len()];
    let mut blocks: Vec<NamedRanges> = Vec::new();
    for (name, range) in parameters.iter().filter(|(_, range)| !range.is_empty()) {
        let found = patterns.iter().map(|pattern| block_name(pattern, name));
        let first = found.enumerate().find_map(|(i, found)| Some((i, found?)));
        let Some((i, block)) = first else {
            continue;
        };
        is_used[i] = true;
        match blocks.iter_mut().find(|(other, _)| *other == block) {
            Some((_, ranges)) => ranges.push(range.clone()),
            None => blocks.push((block, vec![range.clone()])),
        }
    }
    if let Some(i) = is_used.iter().position(|is_used| !is_used) {
        let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::invalid(format!(
            "the pattern `{}` selects no parameters: none match, or earlier patterns select them; the parameters are {}",
            patterns[i],
            names.join(", ")
        )));
    }
    Ok(blocks)
}

/// Returns the name of the block to which `pattern` assigns a parameter; `None` if it does not match.
fn block_name(pattern: &str, name: &str) -> Option<String> {
    let (pattern, name): (Vec<&str>, Vec<&str>) =
        (pattern.split('.').collect(), name.split('.').collect());
    let length = match pattern.contains(&"**") {
        true => name.len(),
        false => pattern.len(),
    };
    let prefix = name.get(..length)?;
    segments_match(&pattern, prefix).then(|| prefix.join("."))
}

/// Whether the segments of a name match a pattern in which `**` stands for one or more segments.
fn segments_match(pattern: &[&str], name: &[&str]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((&"**", rest)) => (1..=name.len()).any(|i| segments_match(rest, &name[i..])),
        Some((first, rest)) => name.split_first().is_some_and(|(segment, others)| {
            segment_matches(first, segment) && segments_match(rest, others)
        }),
    }
}

/// Whether a segment matches a pattern in which `*` stands for any characters.
fn segment_matches(pattern: &str, segment: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == segment;
    };
    let Some(mut segment) = segment.strip_prefix(start) else {
        return false;
    };
    // The first occurrence of each part leaves the most for the next ones.
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match segment.split_once(part) {
            Some((_, rest)) => segment = rest,
            None => return false,
        }
    }
    segment.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 8] = [
        "blocks.0.attention.query.bias",
        "blocks.0.attention.query.weight",
        "blocks.0.norm1.weight",
        "blocks.10.attention.query.weight",
        "blocks.10.norm2.weight",
        "norm.bias",
        "norm.weight",
        "out.weight",
    ];

    fn parameters() -> Vec<(String, Range<usize>)> {
        let named = NAMES.iter().enumerate();
        named
            .map(|(i, name)| ((*name).to_owned(), i..i + 1))
            .collect()
    }

    /// The names of the selected blocks and the first rows of their ranges.
    fn selected(pattern: &str) -> Vec<(String, Vec<usize>)> {
        let blocks = select(pattern, &parameters()).unwrap().into_iter();
        let starts = |ranges: Vec<Range<usize>>| ranges.iter().map(|range| range.start).collect();
        blocks
            .map(|(name, ranges)| (name, starts(ranges)))
            .collect()
    }

    #[test]
    fn patterns_group_parameters_by_their_prefix() {
        for (pattern, expected) in [
            (
                "*",
                vec![
                    ("blocks", vec![0, 1, 2, 3, 4]),
                    ("norm", vec![5, 6]),
                    ("out", vec![7]),
                ],
            ),
            (
                "blocks.*",
                vec![("blocks.0", vec![0, 1, 2]), ("blocks.10", vec![3, 4])],
            ),
            (
                "blocks.*.attention.query",
                vec![
                    ("blocks.0.attention.query", vec![0, 1]),
                    ("blocks.10.attention.query", vec![3]),
                ],
            ),
            ("blocks.1*.norm*", vec![("blocks.10.norm2", vec![4])]),
            (
                "**.bias",
                vec![
                    ("blocks.0.attention.query.bias", vec![0]),
                    ("norm.bias", vec![5]),
                ],
            ),
            (
                "blocks.*.norm*, blocks, norm.weight",
                vec![
                    ("blocks", vec![0, 1, 3]),
                    ("blocks.0.norm1", vec![2]),
                    ("blocks.10.norm2", vec![4]),
                    ("norm.weight", vec![6]),
                ],
            ),
            ("out.weight", vec![("out.weight", vec![7])]),
        ] {
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(name, starts)| (name.to_owned(), starts))
                .collect();
            assert_eq!(selected(pattern), expected, "{pattern}");
        }
        let all: Vec<String> = selected("**").into_iter().map(|(name, _)| name).collect();
        assert_eq!(all, NAMES);
    }

    #[test]
    fn a_pattern_that_selects_nothing_is_an_error() {
        for pattern in [
            "",
            "block",
            "blocks.*.attention.key",
            "out.weight.x",
            "*,norm",
            "a**",
        ] {
            let error = select(pattern, &parameters()).unwrap_err().to_string();
            let last = pattern.split(',').next_back().unwrap();
            assert!(
                error.contains(&format!("`{last}`")) && error.contains("norm.bias, norm.weight"),
                "{error}"
            );
        }
    }
}
