//! Matching by known schemes of names, and by order.

use std::collections::{HashMap, VecDeque};

use super::{Entry, Matching, Pairs, is_complete, last};

/// Translates a name of a file to the zoo's name; `None` if it is not of the scheme.
type Scheme = fn(&str) -> Option<String>;

const SCHEMES: [Scheme; 3] = [|name| Some(name.to_owned()), resnet, densenet];

/// The first scheme that matches all tensors, or else the one that matches most. `modules` are the model's in their order,
/// with the names of their tensors.
pub(super) fn by_names(
    ours: &[Entry],
    theirs: &[Entry],
    modules: &[(String, Vec<String>)],
    matching: &Matching,
) -> Pairs {
    let mut best = Pairs::new();
    let matched = |pairs: &Pairs| pairs.iter().flatten().count();
    for prefix in prefixes(theirs) {
        let renamed = SCHEMES.map(|scheme| by_scheme(ours, theirs, prefix, scheme, matching));
        let numbered = match matching.map.is_empty() {
            true => by_number(ours, theirs, prefix, modules),
            false => None,
        };
        for pairs in renamed.into_iter().chain(numbered) {
            if is_complete(&pairs, theirs) {
                return pairs;
            }
            if best.is_empty() || matched(&pairs) > matched(&best) {
                best = pairs;
            }
        }
    }
    best
}

/// Prefixes that all names share, shortest first: none, and whole parts such as `module.`.
fn prefixes<'a>(theirs: &[Entry<'a>]) -> Vec<&'a str> {
    let mut prefixes = vec![""];
    if let Some(first) = theirs.first() {
        let ends = first.name.match_indices('.').map(|(at, _)| at + 1);
        let shared = ends
            .map(|end| &first.name[..end])
            .take_while(|prefix| theirs.iter().all(|theirs| theirs.name.starts_with(prefix)));
        prefixes.extend(shared);
    }
    prefixes
}

fn by_scheme(
    ours: &[Entry],
    theirs: &[Entry],
    prefix: &str,
    scheme: Scheme,
    matching: &Matching,
) -> Pairs {
    let index = |name: &str| theirs.iter().position(|theirs| theirs.name == name);
    let translated = theirs.iter().enumerate().filter_map(|(i, theirs)| {
        let name = theirs.name.strip_prefix(prefix)?;
        Some((scheme(name)?, i))
    });
    let translated: HashMap<String, usize> = translated.collect();
    let pairs = ours.iter().map(|ours| match matching.mapped(ours.name) {
        Some(name) => index(&name).or_else(|| index(&format!("{prefix}{name}"))),
        None => translated.get(ours.name).copied(),
    });
    pairs.collect()
}

/// `nn.Sequential`'s names: a number for each module, in the order of the modules. `None` if there are others.
fn by_number(
    ours: &[Entry],
    theirs: &[Entry],
    prefix: &str,
    modules: &[(String, Vec<String>)],
) -> Option<Pairs> {
    let mut numbered = Vec::new();
    for (i, theirs) in theirs.iter().enumerate() {
        let (module, _) = theirs.name.strip_prefix(prefix)?.rsplit_once('.')?;
        let numbers = module.split('.').map(|part| part.parse::<usize>().ok());
        numbered.push((numbers.collect::<Option<Vec<_>>>()?, i));
    }
    numbered.sort();
    let by_module: Vec<_> = numbered.chunk_by(|(a, _), (b, _)| a == b).collect();
    let pair = |ours: &Entry| {
        let module = modules
            .iter()
            .position(|(_, names)| names.iter().any(|name| name == ours.name))?;
        let mut tensors = by_module.get(module)?.iter().map(|(_, i)| *i);
        tensors.find(|i| last(theirs[*i].name) == last(ours.name))
    };
    Some(ours.iter().map(pair).collect())
}

/// Names of torchvision's ResNets, and of others for small images (`shortcut` instead of `downsample`, `linear` instead of
/// `fc`).
fn resnet(name: &str) -> Option<String> {
    let (module, tensor) = name.rsplit_once('.')?;
    let parts: Vec<&str> = module.split('.').collect();
    let module = match parts[..] {
        ["conv1"] => "stem.conv".to_owned(),
        ["bn1"] => "stem.norm".to_owned(),
        ["fc" | "linear"] => "out".to_owned(),
        [stage, block, ref part @ ..] => {
            let stage = index_from_one(stage, "layer")?;
            let block: usize = block.parse().ok()?;
            let part = match part {
                ["conv1"] => "conv1",
                ["conv2"] => "conv2",
                ["bn1"] => "norm1",
                ["bn2"] => "norm2",
                ["downsample" | "shortcut", "0"] => "shortcut.conv",
                ["downsample" | "shortcut", "1"] => "shortcut.norm",
                _ => return None,
            };
            format!("stage{stage}.block{block}.{part}")
        }
        _ => return None,
    };
    Some(format!("{module}.{tensor}"))
}

/// Names of torchvision's DenseNets.
fn densenet(name: &str) -> Option<String> {
    let (module, tensor) = name.rsplit_once('.')?;
    let parts: Vec<&str> = module.split('.').collect();
    let module = match parts[..] {
        ["classifier"] => "out".to_owned(),
        ["features", "conv0"] => "stem.conv".to_owned(),
        ["features", block, layer, part] => {
            let block = index_from_one(block, "denseblock")?;
            let layer = index_from_one(layer, "denselayer")?;
            let part = match part {
                "norm1" => "norm",
                "conv1" => "conv",
                _ => return None,
            };
            format!("block{block}.layer{layer}.{part}")
        }
        ["features", transition, part @ ("norm" | "conv")] => {
            let transition = index_from_one(transition, "transition")?;
            format!("transition{transition}.{part}")
        }
        // The number is that of the blocks and one more.
        ["features", norm] => {
            index_from_one(norm, "norm").filter(|blocks| *blocks > 0)?;
            "norm".to_owned()
        }
        _ => return None,
    };
    Some(format!("{module}.{tensor}"))
}

/// The number after `name`, counted from 0 instead of 1.
fn index_from_one(part: &str, name: &str) -> Option<usize> {
    let number: usize = part.strip_prefix(name)?.parse().ok()?;
    number.checked_sub(1)
}

/// Matches tensors of equal shape in their order, and of equal ends of their names if all of the file's have the model's.
pub(super) fn by_order(
    ours: &[Entry],
    theirs: &[Entry],
    modules: &[(String, Vec<String>)],
) -> Pairs {
    let has_ends = theirs
        .iter()
        .all(|theirs| ours.iter().any(|ours| last(ours.name) == last(theirs.name)));
    let key = |entry: &Entry| {
        let end = has_ends.then(|| last(entry.name).to_owned());
        (end, entry.shape.to_vec())
    };
    let mut left: HashMap<_, VecDeque<usize>> = HashMap::new();
    for (i, theirs) in theirs.iter().enumerate() {
        left.entry(key(theirs)).or_default().push_back(i);
    }
    let mut pairs = vec![None; ours.len()];
    for name in modules.iter().flat_map(|(_, names)| names) {
        if let Some(i) = ours.iter().position(|ours| ours.name == name) {
            pairs[i] = left.get_mut(&key(&ours[i])).and_then(VecDeque::pop_front);
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_torchvision_are_translated() {
        for (theirs, ours) in [
            ("conv1.weight", "stem.conv.weight"),
            ("bn1.running_var", "stem.norm.running_var"),
            ("layer1.0.conv1.weight", "stage0.block0.conv1.weight"),
            ("layer4.1.bn2.bias", "stage3.block1.norm2.bias"),
            (
                "layer2.0.downsample.0.weight",
                "stage1.block0.shortcut.conv.weight",
            ),
            (
                "layer2.0.shortcut.1.running_mean",
                "stage1.block0.shortcut.norm.running_mean",
            ),
            ("fc.bias", "out.bias"),
            ("linear.weight", "out.weight"),
        ] {
            assert_eq!(resnet(theirs).as_deref(), Some(ours));
        }
        for (theirs, ours) in [
            ("features.conv0.weight", "stem.conv.weight"),
            (
                "features.denseblock1.denselayer4.norm1.bias",
                "block0.layer3.norm.bias",
            ),
            (
                "features.denseblock3.denselayer1.conv1.weight",
                "block2.layer0.conv.weight",
            ),
            (
                "features.transition2.conv.weight",
                "transition1.conv.weight",
            ),
            ("features.norm5.weight", "norm.weight"),
            ("classifier.weight", "out.weight"),
        ] {
            assert_eq!(densenet(theirs).as_deref(), Some(ours));
        }
        for other in [
            "weight",
            "layer0.0.conv1.weight",
            "layer1.0.conv3.weight",
            "bn2.bias",
        ] {
            assert_eq!(resnet(other), None, "{other}");
        }
        for other in [
            "features.norm0.bias",
            "features.denseblock1.denselayer1.conv2.weight",
        ] {
            assert_eq!(densenet(other), None, "{other}");
        }
    }
}
