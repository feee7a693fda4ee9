//! Products with diagonal blocks of curvature matrices.

mod common;

use common::{assert_close, numbers};
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

fn objective(architecture: Architecture) -> Objective {
    let inputs = Tensor::from_vec(numbers(6 * 64, 9), (6, 1, 8, 8), &CPU).unwrap();
    let labels = Tensor::new(&[0u32, 1, 2, 2, 1, 0], &CPU).unwrap();
    let data = Dataset::classification(&inputs, &labels).unwrap();
    let model = architecture.build(&[1, 8, 8], 3, 1, &CPU).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    Objective::of(&model, &data, Loss::CrossEntropy)
        .unwrap()
        .with_l2(0.01)
        .unwrap()
}

/// Compares blocks with the rows and columns of the whole matrix, for each parameter and for some pairs.
fn check<A, B>(objective: &Objective, whole: &A, block: impl Fn(&[&str]) -> B)
where
    A: LinearOperator,
    B: LinearOperator,
{
    let parameters = objective.parameters().blocks();
    let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    let last = names.len() - 1;
    let mut chosen: Vec<Vec<&str>> = names.iter().map(|name| vec![*name]).collect();
    chosen.extend([vec![names[0], names[last]], vec![names[1], names[last / 2]]]);
    for names in chosen {
        let ranges = names
            .iter()
            .map(|name| objective.parameters().range(name).unwrap());
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_by_key(|range| range.start);
        ranges.dedup();
        let size = ranges.iter().map(|range| range.len()).sum();
        let vectors: Vec<Vec<f64>> = (0..2).map(|i| numbers(size, 30 + i)).collect();
        let found = block(&names).apply_block(&vectors).unwrap();
        for (v, found) in vectors.iter().zip(found) {
            let (mut embedded, mut rest) = (vec![0.0; objective.dim()], &v[..]);
            for range in &ranges {
                let (part, others) = rest.split_at(range.len());
                embedded[range.clone()].copy_from_slice(part);
                rest = others;
            }
            let product = whole.apply(&embedded).unwrap();
            let expected = ranges.iter().flat_map(|range| &product[range.clone()]);
            let expected: Vec<f64> = expected.copied().collect();
            assert_close(&found, &expected, 1e-13);
        }
    }
}

#[test]
fn a_block_has_the_rows_and_columns_of_the_whole_matrix() {
    for architecture in [
        Architecture::Deep,
        Architecture::Residual,
        Architecture::Dense,
        Architecture::Cnn,
        Architecture::DenseNet,
    ] {
        let o = objective(architecture);
        check(&o, &o.hessian(), |names| o.hessian().block(names).unwrap());
        check(&o, &o.gauss_newton(), |names| {
            o.gauss_newton().block(names).unwrap()
        });
        check(&o, &o.empirical_fisher(), |names| {
            o.empirical_fisher().block(names).unwrap()
        });
    }
}

/// Buffers are shared by products, also of other blocks.
#[test]
fn products_do_not_depend_on_earlier_products() {
    for architecture in [Architecture::Residual, Architecture::Cnn] {
        let o = objective(architecture);
        let names: Vec<_> = o.parameters().blocks();
        let last = &names[names.len() - 1].0;
        let ones = vec![1.0; o.dim()];
        let mut mixed = vec![vec![0.0; o.dim()], ones.clone(), vec![0.0; o.dim()]];
        let alone: Vec<_> = [&mixed[0], &ones]
            .map(|v| objective(architecture).hvp(v).unwrap())
            .into();
        let block = o.hessian().block(&[last]).unwrap();
        let of_block = block.apply(&vec![1.0; block.dim()]).unwrap();
        mixed.push(ones.clone());
        let found = o.hessian().apply_block(&mixed).unwrap();
        assert_eq!(found, [0, 1, 0, 1].map(|i| alone[i].clone()));
        assert_eq!(block.apply(&vec![1.0; block.dim()]).unwrap(), of_block);
        assert_eq!(
            block.apply(&vec![0.0; block.dim()]).unwrap(),
            vec![0.0; block.dim()]
        );
        assert_eq!(o.hvp(&mixed[0]).unwrap(), alone[0]);
    }
}
