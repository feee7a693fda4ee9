//! The order of the modules, and the paths in docs/architecture.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the library from the bottom up. A module imports only modules that come before it.
const ORDER: [&str; 30] = [
    "error",
    "vector",
    "random",
    "memory",
    "pool",
    "recycled",
    "progress",
    "ranks",
    "files",
    "checkpoint",
    "partial_results",
    "tables",
    "tensor_functions",
    "kernels",
    "nn",
    "data",
    "parameters",
    "layers",
    "losses",
    "engine",
    "model",
    "import",
    "objective",
    "train",
    "operator",
    "spectral",
    "verdict",
    "landscape",
    "embedding",
    "analysis",
];

/// Top-level modules, which only the program imports.
const TOP: [&str; 3] = ["sweep", "figure", "notebook"];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// For each module, the modules that it imports outside of its tests, each with a file that imports it.
fn imports() -> BTreeMap<String, BTreeMap<String, PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut imports: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for file in files {
        let inside = file.strip_prefix(&root).unwrap();
        let first = inside.iter().next().unwrap().to_str().unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        if ["lib", "bin"].contains(&module.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code = code.lines().filter(|l| !l.trim_start().starts_with("//"));
        let entry = imports.entry(module.clone()).or_default();
        for line in code {
            for part in line.split("crate::").skip(1) {
                let word = part.split(|c: char| !(c.is_alphanumeric() || c == '_'));
                let word = word.into_iter().next().unwrap_or_default();
                if word != module {
                    entry.entry(word.to_owned()).or_insert_with(|| file.clone());
                }
            }
        }
    }
    imports
}

#[test]
fn modules_import_only_modules_below_them() {
    let imports = imports();
    let order = [&ORDER[..], &TOP].concat();
    let rank = |module: &str| order.iter().position(|m| *m == module);
    let listed: BTreeSet<&str> = order.iter().copied().collect();
    let found: BTreeSet<&str> = imports.keys().map(String::as_str).collect();
    assert_eq!(
        found, listed,
        "the modules of src and those in ORDER and TOP"
    );
    for (module, imported) in &imports {
        for (other, file) in imported {
            if let Some(below) = rank(other) {
                assert!(
                    Some(below) < rank(module),
                    "{} imports `{other}`, which is above `{module}`",
                    file.display()
                );
            }
        }
    }
}

/// Every file that the page names exists, and adding a layer takes one line elsewhere.
#[test]
fn the_architecture_page_names_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let mut paths = 0;
    for quoted in page.split('`').skip(1).step_by(2) {
        let is_path = ["src/", "tests/", "docs/", "environment/"];
        if is_path.iter().any(|start| quoted.starts_with(start)) && !quoted.contains('<') {
            assert!(root.join(quoted).exists(), "{quoted} does not exist");
            paths += 1;
        }
    }
    assert!(paths > 15, "{paths}");
    for module in ORDER.iter().chain(&TOP) {
        assert!(page.contains(&format!("`{module}`")), "{module} is missing");
    }
    // A kind of layer is one file and one line in the registry.
    let registry = fs::read_to_string(root.join("src/layers/mod.rs")).unwrap();
    assert!(registry.contains("layer_norm: LayerNorm;"));
    let mentions = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        text.contains("LayerNorm") && !file.ends_with("layer_norm.rs")
    };
    let mut files = Vec::new();
    sources(&root.join("src/layers"), &mut files);
    sources(&root.join("src/engine"), &mut files);
    let others: Vec<_> = files.iter().filter(|file| mentions(file)).collect();
    assert_eq!(others.len(), 1, "{others:?}");
}

/// Without an implementation of `Show`, the kernel compiles a cell that ends in the type twice.
#[test]
fn cells_display_every_type_that_they_name_or_compute() {
    const MODULES: [&str; 11] = [
        "analysis",
        "data",
        "embedding",
        "figure",
        "landscape",
        "model",
        "objective",
        "operator",
        "spectral",
        "sweep",
        "train",
    ];
    const TRAITS: [&str; 10] = [
        "LinearOperator",
        "Model",
        "Module",
        "Optimizer",
        "Points",
        "SampleSource",
        "Show",
        "SimpleBackend",
        "SliceUpdate",
        "Spectral",
    ];
    /// An iterator, the argument of visitors, and a reason that `Engine` displays.
    const NOT_STORED: [&str; 3] = ["Batches", "LayerTile", "GraphReason"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let words = |text: &str| {
        let words = text.split(|c| !is_word(c)).map(str::to_owned);
        words.collect::<BTreeSet<_>>()
    };
    let library = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let (_, prelude) = library.split_once("pub mod prelude {").unwrap();
    let modules = MODULES.map(|module| {
        let file = root.join("src").join(module).join("mod.rs");
        fs::read_to_string(file).unwrap()
    });
    let mut names = BTreeSet::new();
    for text in modules.iter().map(String::as_str).chain([prelude]) {
        let lines = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        for item in ["pub use ", "pub struct ", "pub enum "] {
            let end = if item == "pub use " { ';' } else { '{' };
            let items = code.split(item).skip(1);
            names.extend(items.flat_map(|rest| words(rest.split(end).next().unwrap())));
        }
    }
    let mut files = Vec::new();
    sources(&root.join("src/notebook"), &mut files);
    let displayed = files.iter().flat_map(|file| {
        let text = fs::read_to_string(file).unwrap();
        words(text.split("#[cfg(test)]\nmod tests {").next().unwrap())
    });
    let displayed: BTreeSet<String> = displayed.collect();
    let is_type = |name: &&String| name.starts_with(|c: char| c.is_uppercase());
    let types: Vec<_> = names.iter().filter(is_type).collect();
    assert!(types.len() > 110, "{types:?}");
    let missing = types.into_iter().filter(|name| !displayed.contains(*name));
    let missing: Vec<_> = missing
        .filter(|name| !TRAITS.contains(&name.as_str()) && !NOT_STORED.contains(&name.as_str()))
        .collect();
    assert!(missing.is_empty(), "without Show: {missing:?}");
}
