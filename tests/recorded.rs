//! Decompositions that resume from a file of products.

mod common;

use std::cell::Cell;
use std::fs;
use std::path::Path;

use common::Laplacian;
use loss_landscape::operator::Shifted;
use loss_landscape::prelude::*;
use loss_landscape::spectral::Spectrum;

/// Counts products and fails after `limit`.
struct Counted<'a> {
    matrix: Laplacian,
    products: &'a Cell<usize>,
    limit: usize,
}

impl LinearOperator for Counted<'_> {
    fn dim(&self) -> usize {
        self.matrix.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        if self.products.get() == self.limit {
            return Err(Error::Invalid("interrupted".into()));
        }
        self.products.set(self.products.get() + 1);
        self.matrix.apply(v)
    }
}

const N: usize = 120;

fn counted(products: &Cell<usize>, limit: usize) -> Counted<'_> {
    products.set(0);
    let matrix = Laplacian(N);
    Counted {
        matrix,
        products,
        limit,
    }
}

fn lanczos(block: usize) -> Lanczos {
    Lanczos::default()
        .with_which(Which::BothEnds)
        .with_tolerance(1e-9)
        .with_block_size(block)
        .with_max_basis(Some(30))
}

fn top(file: &Path, products: &Cell<usize>, limit: usize, block: usize) -> Result<Spectrum, Error> {
    lanczos(block).run(&counted(products, limit).with_checkpoint(file)?, 6)
}

#[test]
fn a_decomposition_resumes_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let products = Cell::new(0);
    for block in [1, 3] {
        let uninterrupted = lanczos(block)
            .run(&counted(&products, usize::MAX), 6)
            .unwrap();
        let needed = products.get();
        for limit in (1..needed).step_by(29) {
            let file = dir.path().join(format!("{block}-{limit}"));
            top(&file, &products, limit, block).unwrap_err();
            // The first product of each call identifies the operator, and the last block was incomplete.
            let saved = (limit - 1).saturating_sub(block);
            let operator = counted(&products, usize::MAX)
                .with_checkpoint(&file)
                .unwrap();
            let resumed = lanczos(block).run(&operator, 6).unwrap();
            assert_eq!(resumed, uninterrupted, "after {limit} products");
            let num_read = operator.num_read();
            assert_eq!(
                num_read + products.get() - 1,
                needed,
                "after {limit} products"
            );
            assert!(num_read >= saved, "{num_read} products read after {limit}");
            drop(operator);
            assert_eq!(top(&file, &products, 1, block).unwrap(), uninterrupted);
        }
    }
}

#[test]
fn a_truncated_or_damaged_file_only_costs_time() {
    let dir = tempfile::tempdir().unwrap();
    let (file, products) = (dir.path().join("products"), Cell::new(0));
    let uninterrupted = top(&file, &products, usize::MAX, 1).unwrap();
    let whole = fs::read(&file).unwrap();
    for len in [0, 5, 41, 42, 43, 1000, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..len]).unwrap();
        assert_eq!(
            top(&file, &products, usize::MAX, 1).unwrap(),
            uninterrupted,
            "{len} bytes"
        );
    }
    for offset in [50, 80, 1000, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[offset] ^= 1;
        fs::write(&file, damaged).unwrap();
        assert_eq!(
            top(&file, &products, usize::MAX, 1).unwrap(),
            uninterrupted,
            "byte {offset}"
        );
    }
}

#[test]
fn other_files_and_operators_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (file, products) = (dir.path().join("products"), Cell::new(0));
    let message = |result: Result<Spectrum, Error>| result.unwrap_err().to_string();

    top(&file, &products, 10, 1).unwrap_err();
    let whole = fs::read(&file).unwrap();
    let other = Shifted::new(Laplacian(N), 1e-3)
        .unwrap()
        .with_checkpoint(&file)
        .unwrap();
    let error = message(lanczos(1).run(&other, 6));
    assert!(
        error.contains("holds products of another operator"),
        "{error}"
    );
    drop(other);
    let error = Laplacian(N + 1)
        .with_checkpoint(&file)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("number of rows is not 121"), "{error}");
    // New products of another operator are refused as well.
    let other = Shifted::new(Laplacian(N), 1e-3).unwrap();
    let other = other.with_checkpoint(&file).unwrap();
    assert!(other.apply(&[1.0; N]).is_err() && other.apply(&[1.0; N]).is_err());
    drop(other);
    assert_eq!(fs::read(&file).unwrap(), whole); // the file is unchanged

    let first = Laplacian(N).with_checkpoint(&file).unwrap();
    let error = message(top(&file, &products, 10, 1));
    assert!(error.contains("in use by another process"), "{error}");
    drop(first);

    fs::write(
        &file,
        "some text that is longer than the header of the file",
    )
    .unwrap();
    let error = message(top(&file, &products, 10, 1));
    assert!(error.contains("does not hold products"), "{error}");
    let error = message(top(&dir.path().join("no/such/directory"), &products, 10, 1));
    assert!(error.contains("cannot be read and written"), "{error}");

    let recorded = Laplacian(N)
        .with_checkpoint(dir.path().join("new"))
        .unwrap();
    assert!(recorded.apply(&[1.0]).is_err());
    assert!(recorded.apply(&[f64::NAN; N]).is_err());
}

#[test]
fn traces_and_densities_resume() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("products");
    let products = Cell::new(0);
    let trace = Laplacian(N).trace().unwrap();
    let density = Laplacian(N).density().unwrap();
    counted(&products, 15)
        .with_checkpoint(&file)
        .unwrap()
        .trace()
        .unwrap_err();
    counted(&products, 30)
        .with_checkpoint(&file)
        .unwrap()
        .density()
        .unwrap_err();
    let recorded = counted(&products, usize::MAX)
        .with_checkpoint(&file)
        .unwrap();
    assert_eq!(recorded.trace().unwrap(), trace);
    assert_eq!(recorded.density().unwrap(), density);
    assert!(recorded.num_read() >= 20, "{}", recorded.num_read());
}

/// If a bit is damaged, at most the block of the damaged product is computed again, and the results stay the same.
#[test]
fn damage_costs_one_block() {
    let dir = tempfile::tempdir().unwrap();
    let (file, products) = (dir.path().join("products"), Cell::new(0));
    let uninterrupted = top(&file, &products, usize::MAX, 1).unwrap();
    let whole = fs::read(&file).unwrap();
    let header = 42;
    for offset in (0..whole.len()).step_by(whole.len() / 97) {
        let mut damaged = whole.clone();
        damaged[offset] ^= 1 << (offset % 8);
        fs::write(&file, damaged).unwrap();
        if offset < header {
            assert!(
                top(&file, &products, usize::MAX, 1).is_err(),
                "byte {offset}"
            );
            continue;
        }
        assert_eq!(
            top(&file, &products, usize::MAX, 1).unwrap(),
            uninterrupted,
            "byte {offset}"
        );
        // One product identifies the operator; the largest block checks all six eigenvectors.
        assert!(
            products.get() <= 1 + 6,
            "byte {offset}: {} products",
            products.get()
        );
    }
    // If the identifying product is damaged, the operator is unknown. The products are neither used nor removed.
    let record = 32 + 8 * N + 32;
    let mut unknown = whole.clone();
    for copy in 0..2 {
        unknown[header + copy * record + 40] ^= 1;
    }
    fs::write(&file, &unknown).unwrap();
    let error = top(&file, &products, usize::MAX, 1)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("is damaged where it identifies its operator"),
        "{error}"
    );
    assert_eq!(fs::read(&file).unwrap(), unknown);
}

/// Products in one type are not used for another, although they differ only by rounding.
#[test]
fn products_of_another_type_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = two_moons(60, 0.1, 0, &Device::Cpu).unwrap();
    let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu).unwrap();
    let hessian = |dtype| {
        let data = data.to_dtype(dtype).unwrap();
        let model = model.to_dtype(dtype).unwrap();
        let objective = Objective::of(&model, &data, Loss::CrossEntropy);
        objective.unwrap().hessian()
    };
    for (first, second) in [(DType::F32, DType::F64), (DType::F64, DType::F32)] {
        let file = dir.path().join(first.as_str());
        let saved = hessian(first)
            .with_checkpoint(&file)
            .unwrap()
            .top(2)
            .unwrap();
        let shifted = Shifted::new(hessian(second), 0.0).unwrap();
        let error = shifted.with_checkpoint(&file).err().unwrap().to_string();
        let problem = format!("not computed in {}", second.as_str());
        assert!(error.contains(&problem), "{error}");
        let again = hessian(first).with_checkpoint(&file).unwrap();
        assert_eq!(again.top(2).unwrap(), saved);
        assert!(again.num_read() > 0);
    }
}
