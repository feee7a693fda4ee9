//! The zoo: derivatives by both engines, names, seeds and errors.

mod common;

use common::{assert_close, dot, labelled, numbers, small_shape};
use loss_landscape::model::Design;
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

fn data(shape: &[usize]) -> Dataset {
    labelled(shape, &[2, 0, 1], &CPU).unwrap()
}

/// A smooth version of a network, with and without shortcuts and normalisation.
fn designs(architecture: Architecture) -> Vec<Design> {
    let default = architecture.design().activation(Activation::Tanh);
    let designs = [
        default,
        default.without_shortcuts(),
        default.normalization(Norm::Group(1)),
        default.normalization(Norm::None),
        default.normalization(Norm::Batch),
    ];
    let mut distinct: Vec<Design> = Vec::new();
    for design in designs {
        if !distinct.contains(&design) {
            distinct.push(design);
        }
    }
    distinct
}

/// Asserts that double backward matches differences of the gradient and the hand-derived rules, and that every parameter has a
/// gradient.
#[track_caller]
fn assert_derivatives(designs: &[Design]) {
    for design in designs {
        let architecture = design.architecture;
        let shape = small_shape(architecture);
        let model = design.build(shape, 3, 4, &CPU).unwrap();
        let model = model.to_dtype(DType::F64).unwrap();
        let fast = Objective::of(&model, &data(shape), Loss::CrossEntropy).unwrap();
        assert!(fast.is_hand_derived());
        let slow = fast.clone().by_autograd();
        let gradient = slow.gradient().unwrap();
        for (name, range) in model.parameters().blocks() {
            assert!(
                gradient[range].iter().any(|g| *g != 0.0),
                "{design:?}: {name}"
            );
        }
        assert_close(&fast.gradient().unwrap(), &gradient, 1e-10);

        let theta = model.parameters().to_flat().unwrap();
        let [u, v] = [2, 3].map(|seed| numbers(theta.len(), seed));
        let [hu, hv] = [&u, &v].map(|v| slow.hvp(v).unwrap());
        assert_close(&[dot(&u, &hv)], &[dot(&v, &hu)], 1e-9);
        assert_close(&fast.hvp(&v).unwrap(), &hv, 1e-10);
        // Richardson extrapolation of central differences.
        let central = |step: f64| {
            let h = step / dot(&v, &v).sqrt();
            let [ahead, behind] = [h, -h].map(|h| {
                let moved: Vec<f64> = theta.iter().zip(&v).map(|(t, v)| t + h * v).collect();
                slow.gradient_at(&moved).unwrap().1
            });
            let pairs = ahead.into_iter().zip(behind);
            pairs.map(move |(a, b)| (a - b) / (2.0 * h))
        };
        let steps = central(2e-3).zip(central(1e-3));
        let difference: Vec<f64> = steps.map(|(h, half)| (4.0 * half - h) / 3.0).collect();
        assert_close(&hv, &difference, 1e-6);
    }
}

#[test]
fn derivatives_of_the_perceptrons() {
    for architecture in [
        Architecture::Toy,
        Architecture::Shallow,
        Architecture::Deep,
        Architecture::Residual,
        Architecture::Dense,
    ] {
        assert_derivatives(&designs(architecture));
    }
}

#[test]
fn derivatives_of_the_small_convolutional_network() {
    assert_derivatives(&designs(Architecture::Cnn));
}

#[test]
fn derivatives_of_resnet20() {
    assert_derivatives(&designs(Architecture::ResNet20));
}

#[test]
fn derivatives_of_resnet18() {
    // A single design, because it has eleven million parameters and the layers of ResNet-20.
    let smooth = Architecture::ResNet18.design().activation(Activation::Tanh);
    assert_derivatives(&[smooth]);
}

#[test]
fn derivatives_of_densenet() {
    assert_derivatives(&designs(Architecture::DenseNet));
}

/// Numbers of parameters compared with counts by hand.
#[test]
fn numbers_of_parameters() {
    let len = |architecture: Architecture, inputs: &[usize], outputs| {
        let model = architecture.build(inputs, outputs, 0, &CPU).unwrap();
        model.parameters().len()
    };
    assert_eq!(len(Architecture::Toy, &[2], 1), 13);
    assert_eq!(
        len(Architecture::Shallow, &[20], 2),
        20 * 64 + 64 + 64 * 2 + 2
    );
    // 0.27 million in the paper; here two shortcuts have projections.
    assert_eq!(len(Architecture::ResNet20, &[3, 32, 32], 10), 272_474);
    // The usual count for small images. Group normalisation has as many parameters as batch normalisation.
    assert_eq!(len(Architecture::ResNet18, &[3, 32, 32], 10), 11_173_962);
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    for architecture in Architecture::ALL {
        let flat = |seed| {
            let model = architecture
                .build(small_shape(architecture), 3, seed, &CPU)
                .unwrap();
            model.parameters().to_flat().unwrap()
        };
        assert_eq!(flat(1), flat(1));
        assert_ne!(flat(1), flat(2));
    }
}

#[test]
fn errors_of_unknown_names_list_known_names() {
    for architecture in Architecture::ALL {
        assert_eq!(
            Architecture::named(architecture.name()).unwrap(),
            architecture
        );
    }
    let error = Architecture::named("resnet21").unwrap_err().to_string();
    assert!(
        error.contains("resnet21") && error.contains("resnet20"),
        "{error}"
    );
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let refused = |design: Design, inputs: &[usize], outputs| {
        let error = design.build(inputs, outputs, 0, &CPU).unwrap_err();
        error.to_string()
    };
    let resnet = Architecture::ResNet20.design();
    assert!(refused(resnet, &[784], 10).contains("channels × height × width"));
    assert!(refused(resnet, &[1, 0, 28], 10).contains("[1, 0, 28]"));
    assert!(refused(resnet, &[1, 28, 28], 0).contains("to 0 outputs: no size can be 0"));
    for groups in [0, 7] {
        let odd = resnet.normalization(Norm::Group(groups));
        assert!(
            refused(odd, &[1, 28, 28], 10)
                .contains(&format!(", 16, cannot be divided into {groups} groups"))
        );
    }
}
