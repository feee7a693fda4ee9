//! Work split across ranks, here threads of one process, and across shards.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use common::{Laplacian, bytes};
use loss_landscape::landscape::ExtremeEigenvalues;
use loss_landscape::objective::CrossEntropy;
use loss_landscape::operator::{Distributed, Recorded};
use loss_landscape::prelude::*;
use loss_landscape::ranks::{Ranks, Share};
use loss_landscape::spectral::Density;

/// State shared by the ranks.
struct Group {
    barrier: Barrier,
    sums: Mutex<Vec<Vec<f64>>>,
    claims: Mutex<(u64, usize)>,
}

/// A rank that is a thread.
struct Thread {
    rank: usize,
    size: usize,
    works: Mutex<u64>,
    group: Arc<Group>,
}

impl Ranks for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, values: &mut [f64]) -> Result<(), Error> {
        self.group.sums.lock().unwrap()[self.rank] = values.to_vec();
        self.group.barrier.wait();
        let all = self.group.sums.lock().unwrap().clone();
        assert!(all.iter().all(|other| other.len() == values.len()));
        for (i, value) in values.iter_mut().enumerate() {
            *value = all.iter().map(|other| other[i]).sum();
        }
        self.group.barrier.wait();
        Ok(())
    }

    fn begin(&self) -> u64 {
        let mut works = self.works.lock().unwrap();
        *works += 1;
        *works
    }

    fn claim(&self, work: u64, count: usize) -> Result<Option<usize>, Error> {
        let mut claims = self.group.claims.lock().unwrap();
        if work > claims.0 {
            *claims = (work, 0);
        }
        let item = (work == claims.0 && claims.1 < count).then_some(claims.1);
        claims.1 += usize::from(item.is_some());
        Ok(item)
    }
}

/// Runs `work` on each of `size` ranks. Returns their results.
fn on_ranks<T: Send>(size: usize, work: impl Fn(Arc<dyn Ranks>) -> T + Sync) -> Vec<T> {
    let group = Arc::new(Group {
        barrier: Barrier::new(size),
        sums: Mutex::new(vec![Vec::new(); size]),
        claims: Mutex::default(),
    });
    thread::scope(|scope| {
        let rank = |rank| {
            let (group, work) = (group.clone(), &work);
            let works = Mutex::new(0);
            scope.spawn(move || {
                work(Arc::new(Thread {
                    rank,
                    size,
                    works,
                    group,
                }))
            })
        };
        let threads: Vec<_> = (0..size).map(rank).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// Each rank has its own model.
fn objective() -> Objective {
    let data = two_moons(61, 0.1, 0, &Device::Cpu).unwrap();
    let model = Mlp::new(&[2, 6, 1], Activation::Tanh, 1, &Device::Cpu).unwrap();
    let model = model.to_dtype(DType::F64).unwrap();
    Objective::of(&model, &data, Loss::CrossEntropy)
        .unwrap()
        .with_l2(0.01)
        .unwrap()
}

fn close(a: &[f64], b: &[f64]) {
    common::assert_close(a, b, 1e-12);
}

/// Results of all methods of an objective.
fn all_of(objective: &Objective, theta: &[f64], test: &Dataset) -> Vec<f64> {
    let score = objective.score_at(theta).unwrap();
    let (loss, gradient) = objective.gradient_at(theta).unwrap();
    let test_loss = objective.with_data(test).unwrap().loss().unwrap();
    let numbers = [score.loss, score.accuracy.unwrap(), loss, test_loss];
    let covariance = objective.gradient_covariance().unwrap();
    let products = [
        objective.hessian().apply(theta).unwrap(),
        objective.gauss_newton().apply(theta).unwrap(),
        objective.fisher().apply(theta).unwrap(),
        objective.empirical_fisher().apply(theta).unwrap(),
        covariance.apply(theta).unwrap(),
    ];
    let line = Line::along(objective, theta, 1.0, 5).unwrap();
    [&numbers[..], &gradient, &products.concat(), &line.losses].concat()
}

#[test]
fn sums_over_ranks_are_sums_over_samples() {
    for by_graph in [false, true] {
        let objective = || {
            if by_graph {
                objective().by_autograd()
            } else {
                objective()
            }
        };
        let whole = objective();
        let theta = direction::gaussian(whole.parameters(), 3);
        let test = two_moons(40, 0.2, 5, &Device::Cpu).unwrap();
        for size in 1..=4 {
            let found = on_ranks(size, |ranks| {
                let local = objective().with_ranks(ranks).unwrap();
                assert_eq!(local.samples(), 61);
                assert!(local.data().len() <= 61_usize.div_ceil(size));
                all_of(&local, &theta, &test)
            });
            let expected = all_of(&whole, &theta, &test);
            for result in &found {
                close(result, &expected);
                assert_eq!(result, &found[0]); // the same bits on each
            }
        }
    }
}

/// Ranks have different numbers of labels that count, and the last has none.
#[test]
fn ignored_labels_are_not_counted_on_any_rank() {
    let objective = |by_graph: bool| {
        let data = two_moons(61, 0.1, 0, &Device::Cpu).unwrap();
        let mut labels = data.labels().unwrap();
        labels[40..].fill(9);
        labels[..40]
            .iter_mut()
            .step_by(3)
            .for_each(|label| *label = 9);
        let labels = Tensor::from_vec(labels, 61, &Device::Cpu).unwrap();
        let data = Dataset::classification(data.inputs(), &labels).unwrap();
        let model = Mlp::new(&[2, 6, 1], Activation::Tanh, 1, &Device::Cpu).unwrap();
        let model = model.to_dtype(DType::F64).unwrap();
        let loss = CrossEntropy::default().with_ignored_label(9);
        let objective = Objective::of(&model, &data, loss).unwrap();
        if by_graph {
            objective.by_autograd()
        } else {
            objective
        }
    };
    for by_graph in [false, true] {
        let whole = objective(by_graph);
        let theta = direction::gaussian(whole.parameters(), 3);
        let test = two_moons(40, 0.2, 5, &Device::Cpu).unwrap();
        let expected = all_of(&whole, &theta, &test);
        for found in on_ranks(3, |ranks| {
            let local = objective(by_graph).with_ranks(ranks).unwrap();
            all_of(&local, &theta, &test)
        }) {
            close(&found, &expected);
        }
    }
}

#[test]
fn spectra_are_the_same_on_any_number_of_ranks() {
    let whole = objective().hessian();
    let (values, trace, density) = (
        whole.top(5).unwrap().values(),
        whole.trace().unwrap(),
        whole.density().unwrap(),
    );
    for size in 1..=3 {
        let found = on_ranks(size, |ranks| {
            let divided = objective().with_ranks(ranks.clone()).unwrap().hessian();
            let by_vectors = Distributed::new(objective().hessian(), ranks);
            (
                [
                    divided.top(5).unwrap().values(),
                    by_vectors.top(5).unwrap().values(),
                ],
                [divided.trace().unwrap(), by_vectors.trace().unwrap()],
                by_vectors.density().unwrap(),
            )
        });
        for (spectra, traces, its_density) in &found {
            spectra
                .iter()
                .for_each(|s| common::assert_close(s, &values, 1e-6));
            traces
                .iter()
                .for_each(|t| close(&[t.value], &[trace.value]));
            let moments = |d: &Density| [1, 2, 5].map(|k| d.moment(k).value);
            common::assert_close(&moments(its_density), &moments(&density), 1e-6);
        }
        assert!(
            found
                .iter()
                .all(|other| (&other.0, &other.1) == (&found[0].0, &found[0].1))
        );
    }
}

fn plane(dir: &Path, share: Share) -> Result<Plane, Error> {
    let objective = objective();
    let [d1, d2] = direction::filter_normalized_pair(objective.parameters(), 0)?;
    let grid = Grid::square(1.0, 7)?
        .with_checkpoint(dir.join("unfinished"))
        .with_share(share)?;
    let plane = Plane::on_grid(&objective, &d1, &d2, &grid);
    let extremes = ExtremeEigenvalues::on_grid(&objective, &d1, &d2, &grid);
    let mut plane = plane?;
    plane.eigenvalues = Some(extremes?);
    Ok(plane)
}

#[test]
fn a_plane_is_the_same_on_ranks_and_shards() {
    let dir = || tempfile::tempdir().unwrap();
    let alone = plane(dir().path(), Share::default()).unwrap();
    for size in 1..=4 {
        let together = dir();
        let found = on_ranks(size, |ranks| {
            plane(together.path(), Share::ranks(ranks)).unwrap()
        });
        assert!(found.iter().all(|plane| *plane == alone));

        let apart = dir();
        for i in 1..=size {
            let found = plane(apart.path(), Share::shard(i, size).unwrap());
            match found {
                Ok(found) => assert!(i == size && found == alone),
                Err(Error::Unfinished {
                    done, count: 49, ..
                }) => assert_eq!(done, i * 49 / size),
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(plane(apart.path(), Share::default()).unwrap(), alone);
    }
}

/// A different number of ranks or shards can resume unfinished work. Truncated files only cost time.
#[test]
fn unfinished_planes_resume_on_any_number_of_processes() {
    let dir = tempfile::tempdir().unwrap();
    let alone = plane(dir.path(), Share::default()).unwrap();
    let whole = std::fs::read(dir.path().join("unfinished")).unwrap();
    for length in [0, 10, 31, 32, 100, 32 + 24 * 11 + 7, whole.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("unfinished"), &whole[..length]).unwrap();
        let _ = plane(dir.path(), Share::shard(2, 3).unwrap());
        let found = on_ranks(2, |ranks| plane(dir.path(), Share::ranks(ranks)).unwrap());
        assert!(found.iter().all(|plane| *plane == alone), "{length} bytes");
        assert_eq!(plane(dir.path(), Share::default()).unwrap(), alone);
    }
    let other = Grid::square(2.0, 7)
        .unwrap()
        .with_checkpoint(dir.path().join("unfinished"));
    let objective = objective();
    let [d1, d2] = direction::filter_normalized_pair(objective.parameters(), 0).unwrap();
    let found = Plane::on_grid(&objective, &d1, &d2, &other)
        .unwrap_err()
        .to_string();
    assert!(found.contains("is a checkpoint of other work"), "{found}");
    other.remove_checkpoint().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Saved points are not computed again by a process, by ranks or by shards.
#[test]
fn saved_points_are_not_computed_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = two_moons(40, 0.1, 0, &Device::Cpu).unwrap();
    // Number of forward passes while the plane was computed.
    let passes = |share: Share| {
        let vars = VarMap::new();
        let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
        let layer = candle_nn::linear(2, 1, vb).unwrap();
        let forward_passes = Arc::new(AtomicUsize::new(0));
        let count = forward_passes.clone();
        let forward = move |x: &Tensor| {
            count.fetch_add(1, Ordering::Relaxed);
            layer.forward(x)
        };
        let parameters = Parameters::try_from(&vars).unwrap();
        parameters.set_flat(&[0.1, 0.2, 0.3]).unwrap();
        let objective = Objective::from_fn(&vars, &data, Loss::CrossEntropy, forward).unwrap();
        let grid = Grid::square(1.0, 11)
            .unwrap()
            .with_checkpoint(dir.path().join("unfinished"));
        let grid = grid.with_share(share).unwrap();
        let before = forward_passes.load(Ordering::Relaxed);
        let found = Plane::on_grid(&objective, &[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &grid);
        (
            found.is_ok(),
            forward_passes.load(Ordering::Relaxed) - before,
        )
    };
    let (whole, third) = passes(Share::shard(1, 3).unwrap());
    assert!(!whole && third >= 40, "{third}");
    let found = on_ranks(2, |ranks| passes(Share::ranks(ranks)));
    let all: usize = found.iter().map(|(_, passes)| passes).sum();
    assert!(
        found.iter().all(|(whole, _)| *whole) && (81..100).contains(&all),
        "{all}"
    );
    for again in on_ranks(2, |ranks| passes(Share::ranks(ranks))) {
        assert!(again.0 && again.1 < 5, "{again:?}");
    }
    for share in [Share::default(), Share::shard(2, 5).unwrap()] {
        let again = passes(share);
        assert!(again.0 && again.1 < 5, "{again:?}");
    }
}

fn sweep(share: Share) -> Sweep {
    Sweep::between(0.0, 0.06, 7)
        .unwrap()
        .with_trainer(Trainer::adam(0.01).with_batch_size(20).with_epochs(3))
        .with_top(3)
        .with_share(share)
}

fn run_sweep(dir: &Path, share: Share) -> Result<loss_landscape::sweep::SweepReport, Error> {
    let data = two_moons(60, 0.1, 0, &Device::Cpu)?.to_dtype(DType::F32)?;
    let model = |seed| Mlp::new(&[2, 6, 1], Activation::Tanh, seed, &Device::Cpu);
    sweep(share).run(dir, model, &data, &data)
}

#[test]
fn a_sweep_has_the_same_bytes_on_ranks_and_shards() {
    let alone = tempfile::tempdir().unwrap();
    let alone = alone.path().join("study");
    let report = run_sweep(&alone, Share::default()).unwrap();
    for size in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let together = dir.path().join("together");
        let found = on_ranks(size, |ranks| {
            run_sweep(&together, Share::ranks(ranks)).unwrap()
        });
        assert!(found.iter().all(|found| *found == report));
        assert_eq!(bytes(&together), bytes(&alone));

        let apart = dir.path().join("apart");
        for i in 1..=size {
            match run_sweep(&apart, Share::shard(i, size).unwrap()) {
                Ok(found) => assert_eq!((i, found.points), (size, report.points.clone())),
                Err(Error::Unfinished { count: 7, .. }) => assert!(i < size),
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(bytes(&apart), bytes(&alone));
    }
    // A different number of shards, while another shard is running.
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join(".unfinished/shard-1-of-2");
    std::fs::create_dir_all(other.parent().unwrap()).unwrap();
    let other = std::fs::File::create(other).unwrap();
    other.lock().unwrap();
    let error = run_sweep(dir.path(), Share::shard(1, 3).unwrap()).unwrap_err();
    assert!(
        error.to_string().contains("another number of shards"),
        "{error}"
    );
    drop(other);
    // Concurrent shards.
    let dir = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        for i in 1..=3 {
            let dir = dir.path();
            scope.spawn(move || match run_sweep(dir, Share::shard(i, 3).unwrap()) {
                Ok(_) | Err(Error::Unfinished { .. }) => {}
                Err(other) => panic!("{other}"),
            });
        }
    });
    assert_eq!(bytes(dir.path()), bytes(&alone));
}

/// An error on one rank is an error on all ranks.
#[test]
fn no_rank_waits_for_one_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::fs::File::create(dir.path().join("unfinished.rank-2")).unwrap();
    taken.lock().unwrap();
    let found = on_ranks(3, |ranks| {
        plane(dir.path(), Share::ranks(ranks)).map_err(|e| e.to_string())
    });
    let error = found[2].as_ref().unwrap_err();
    assert!(error.contains("is in use by another process"), "{error}");
    let others = found[..2].iter().map(|found| found.as_ref().unwrap_err());
    others.for_each(|error| assert!(error.contains("ranks failed"), "{error}"));

    let found = on_ranks(2, |ranks| {
        let whole = objective();
        let local = whole.clone().with_ranks(ranks.clone()).unwrap();
        assert!(local.clone().with_ranks(ranks.clone()).is_err());
        assert!(local.jacobian().is_err());
        let d = direction::gaussian(whole.parameters(), 0);
        let grid = Grid::square(1.0, 3).unwrap();
        let shared = grid
            .clone()
            .with_share(Share::ranks(ranks.clone()))
            .unwrap();
        let resumed = grid.with_checkpoint(dir.path().join("other"));
        for grid in [shared, resumed] {
            assert!(Plane::on_grid(&local, &d, &d, &grid).is_err());
            assert!(ExtremeEigenvalues::on_grid(&local, &d, &d, &grid).is_err());
        }
        let theta = whole.parameters().to_flat().unwrap();
        assert!(
            PathTrainer::default()
                .connect(&local, &theta, &theta)
                .is_err()
        );
        let few = whole.with_data(&whole.data().first(1).unwrap()).unwrap();
        few.with_ranks(ranks).unwrap_err().to_string()
    });
    assert!(
        found[0].contains("1 sample cannot be divided among 2 ranks"),
        "{}",
        found[0]
    );
}

/// The root rank saves the products, and a decomposition resumes on any number of ranks.
#[test]
fn the_root_rank_saves_products() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("products");
    let lanczos = Lanczos::default().with_max_products(15);
    on_ranks(3, |ranks| {
        let recorded = Recorded::on_ranks(Laplacian(100), &file, ranks).unwrap();
        lanczos.run(&recorded, 5).unwrap();
    });
    let alone = Laplacian(100).top(5).unwrap();
    for size in [1, 2] {
        let found = on_ranks(size, |ranks| {
            let recorded = Recorded::on_ranks(Laplacian(100), &file, ranks).unwrap();
            let top = recorded.top(5).unwrap();
            (top, recorded.num_read())
        });
        assert!(
            found
                .iter()
                .all(|(top, reads)| *top == alone && *reads >= 15)
        );
    }
}

#[test]
fn shards_are_counted_from_one() {
    for wrong in ["0/2", "3/2", "1", "a/b", "1/0", ""] {
        assert!(wrong.parse::<Share>().is_err(), "{wrong}");
    }
    assert!(
        Grid::square(1.0, 3)
            .unwrap()
            .with_share(Share::shard(1, 2).unwrap())
            .is_err()
    );
}
