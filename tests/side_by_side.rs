//! Objectives that use candle's graph, on several threads and inside forward passes of other objectives.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use common::numbers;
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;
const TIMEOUT: Duration = Duration::from_secs(30);

type Call = fn(&Objective) -> Result<(), Error>;

fn data() -> Dataset {
    two_moons(40, 0.1, 3, &CPU).unwrap()
}

fn weight(seed: u64) -> Var {
    Var::from_vec(numbers(2, seed), (2, 1), &CPU).unwrap()
}

/// A linear classifier with `then` applied to its outputs.
fn objective(
    w: &Var,
    then: impl Fn(Tensor) -> candle::Result<Tensor> + Send + Sync + 'static,
) -> Objective {
    let parameters = Parameters::new([("w".to_owned(), w.clone())]).unwrap();
    let w = w.clone();
    let forward = move |x: &Tensor| then(x.matmul(&w)?);
    Objective::from_fn(parameters, &data(), Loss::CrossEntropy, forward).unwrap()
}

/// Runs `f` on a thread, which must end before the timeout.
#[track_caller]
fn must_end<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = channel();
    let thread = std::thread::spawn(move || {
        let found = f();
        let _ = done.send(());
        found
    });
    // If the thread panics, the channel closes at once.
    let waited = ended.recv_timeout(TIMEOUT);
    assert_ne!(
        waited,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout),
        "deadlock"
    );
    thread.join().unwrap()
}

/// A barrier for two forward passes.
#[derive(Default)]
struct Barrier {
    open: AtomicBool,
    arrived: Mutex<usize>,
    changed: Condvar,
}

impl Barrier {
    fn meet(&self) -> candle::Result<()> {
        if !self.open.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut arrived = self.arrived.lock().unwrap();
        *arrived += 1;
        let both = arrived.next_multiple_of(2);
        self.changed.notify_all();
        let waited = self
            .changed
            .wait_timeout_while(arrived, TIMEOUT, |arrived| *arrived < both);
        match waited.unwrap().1.timed_out() {
            true => candle::bail!("the other model did not arrive"),
            false => Ok(()),
        }
    }
}

#[test]
fn two_models_run_concurrently() {
    let barrier = Arc::new(Barrier::default());
    let [a, b] = [1, 2].map(|seed| {
        let barrier = barrier.clone();
        objective(&weight(seed), move |z| barrier.meet().map(|()| z))
    });
    let alone = [&a, &b].map(|o| (o.loss().unwrap(), o.hvp(&[1.0, 2.0]).unwrap()));
    barrier.open.store(true, Ordering::SeqCst);
    let calls: [Call; 4] = [
        |o| o.loss().map(drop),
        |o| o.loss_at(&[0.5, 0.5]).map(drop),
        |o| o.gradient_at(&[0.5, 0.5]).map(drop),
        |o| o.hvp(&[1.0, 2.0]).map(drop),
    ];
    for (first, second) in (0..4).flat_map(|i| (0..4).map(move |j| (i, j))) {
        let (a, b) = (a.clone(), b.clone());
        must_end(move || {
            std::thread::scope(|scope| {
                let other = scope.spawn(|| calls[first](&a));
                calls[second](&b).unwrap();
                other.join().unwrap().unwrap();
            });
        });
    }
    barrier.open.store(false, Ordering::SeqCst);
    let after = [&a, &b].map(|o| (o.loss().unwrap(), o.hvp(&[1.0, 2.0]).unwrap()));
    assert_eq!(alone, after);
}

/// Batches of one objective and calls from several threads run at once. Every result equals that of a single call.
#[test]
fn many_threads_get_the_results_of_one() {
    let objective = objective(&weight(1), Ok).with_batch_size(7).unwrap();
    let theta = [0.3, -0.7];
    let alone = (
        objective.loss().unwrap(),
        objective.loss_at(&theta).unwrap(),
    );
    must_end(move || {
        std::thread::scope(|scope| {
            for i in 0..8 {
                let objective = &objective;
                scope.spawn(move || {
                    for _ in 0..20 {
                        match i % 2 {
                            0 => assert_eq!(objective.loss().unwrap(), alone.0),
                            _ => assert_eq!(objective.loss_at(&theta).unwrap(), alone.1),
                        }
                    }
                });
            }
        });
    });
}

/// A model whose outputs are scaled by the loss of another objective.
#[test]
fn a_forward_pass_may_use_an_objective() {
    let inner = objective(&weight(2), Ok).with_batch_size(9).unwrap();
    let by_hand = Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &CPU).unwrap();
    let by_hand = by_hand.to_dtype(DType::F64).unwrap();
    let by_hand = Objective::of(&by_hand, &data(), Loss::CrossEntropy).unwrap();
    let expected = {
        let (loss, moved) = (inner.loss().unwrap(), inner.loss_at(&[1.0, 1.0]).unwrap());
        let slope = inner.gradient_at(&[1.0, 0.0]).unwrap().1[0];
        let curvature = inner.hvp(&[1.0, 0.0]).unwrap()[0];
        loss + moved + slope + curvature + by_hand.loss().unwrap()
    };
    must_end(move || {
        let (w, nested) = (weight(1), inner.clone());
        let outer = objective(&w, move |z| {
            let wrapped = |e| candle::Error::wrap(e);
            let slope = nested.gradient_at(&[1.0, 0.0]).map_err(wrapped)?.1[0];
            let curvature = nested.hvp(&[1.0, 0.0]).map_err(wrapped)?[0];
            let (loss, moved) = (nested.loss(), nested.loss_at(&[1.0, 1.0]));
            let hand = by_hand.loss().map_err(wrapped)?;
            z * (loss.map_err(wrapped)? + moved.map_err(wrapped)? + slope + curvature + hand)
        });
        let outer = outer.with_batch_size(11).unwrap();
        let plain = objective(&w, move |z| z * expected);
        let v = [0.2, -0.4];
        let theta = [0.1, 0.9];
        assert!((outer.loss().unwrap() - plain.loss().unwrap()).abs() < 1e-12);
        assert!((outer.loss_at(&theta).unwrap() - plain.loss_at(&theta).unwrap()).abs() < 1e-12);
        for (a, b) in outer.hvp(&v).unwrap().iter().zip(plain.hvp(&v).unwrap()) {
            assert!((a - b).abs() < 1e-12);
        }
        // Several outer calls share the inner objective.
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| outer.loss_at(&theta).unwrap());
            }
        });
    });
}

/// The inner objective would change the parameters during the forward pass that uses them.
#[test]
fn a_forward_pass_that_moves_its_own_parameters_is_an_error() {
    let w = weight(1);
    let inner = objective(&w, Ok);
    let theta = vec![0.5, 0.5];
    let error = must_end(move || {
        let parameters = Parameters::new([("w".to_owned(), w.clone())]).unwrap();
        let forward = move |x: &Tensor| {
            let scale = inner.loss_at(&theta).map_err(candle::Error::wrap)?;
            x.matmul(&w)? * scale
        };
        let outer = Objective::from_fn(parameters, &data(), Loss::CrossEntropy, forward);
        outer.unwrap_err().to_string()
    });
    assert!(error.contains("give the inner objective a copy"), "{error}");
}

/// A listener may do work that sends events, while other threads change the listener.
#[test]
fn a_listener_may_use_an_objective() {
    static INNER: OnceLock<Objective> = OnceLock::new();
    INNER.get_or_init(|| objective(&weight(4), Ok));
    must_end(|| {
        let busy = AtomicBool::new(false);
        loss_landscape::progress::listen(move |_| {
            if busy.swap(true, Ordering::SeqCst) {
                return;
            }
            let dense = INNER.get().map(|inner| inner.hessian().dense());
            assert!(dense.is_some_and(|dense| dense.is_ok()));
            loss_landscape::progress::listen(|_| {});
            busy.store(false, Ordering::SeqCst);
        });
        objective(&weight(5), Ok).hessian().dense().unwrap();
    });
}
