//! Gradients and Hessian-vector products of any candle model, by double backward.
//!
//! candle cuts the graph of a gradient unless `CANDLE_GRAD_DO_NOT_DETACH` is set when a thread first calls
//! `backward`, and caches that for the thread's lifetime. Only worker threads of this module call it, and each sets
//! the variable for its first call; so products are correct on any thread of the caller's, whatever it ran before.
//!
//! Batches run in parallel, each on its own worker, and so do those of several callers. A forward pass that itself
//! uses an objective works on its own thread. candle spreads its element-wise operations over its own threads, one
//! operation at a time, so parallel batches would wait for one another: products take twice as long.
//! `CANDLE_NUM_THREADS=1` prevents that, if it is set before the process's first large operation. The notebooks'
//! kernel and the command line set it, and so does the first objective of a process.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::in_use::{current_use, with_parent};
use crate::error::{Error, Result};
use crate::model::Parameters;
use crate::progress;

/// candle walks a graph recursively, and a deep model has a deep graph.
const STACK_BYTES: usize = 256 << 20;

const KEEP_GRAPH: &str = "CANDLE_GRAD_DO_NOT_DETACH";
const OPERATION_THREADS: &str = "CANDLE_NUM_THREADS";

/// Advice about operations of candle that leave no trace in the graph, so that they cannot be found in it.
pub(super) const FUSED: &str = "candle_nn's LayerNorm, RmsNorm, ops::softmax_last_dim and rotary_emb::rope have no derivative: \
                                use nn::LayerNorm, nn::RmsNorm, nn::ops::softmax_last_dim and nn::ops::rope of this crate instead";

/// Number of batches that run at once: 1 on a GPU or on a worker thread.
pub(super) fn at_once(device: &Device) -> usize {
    match device.is_cpu() && !IS_WORKER.get() {
        true => processors(),
        false => 1,
    }
}

/// Calls `f` on all items in parallel and returns the results in order. A panic in `f` is an error.
pub(super) fn on_workers<I: Sync, T: Send>(
    items: &[I],
    f: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<Result<T>>> {
    let checked = |item| progress::check().and_then(|()| f(item));
    let guarded = |item| catch_unwind(AssertUnwindSafe(|| checked(item))).unwrap_or_else(panicked);
    if IS_WORKER.get() {
        return Ok(items.iter().map(guarded).collect());
    }
    let guarded = &guarded;
    let workers = items.iter().map(|_| take_worker());
    let workers = workers.collect::<Result<Vec<_>>>()?;
    let caller = current_use();
    let single_threaded = SingleThreadedProducts::begin();
    let results = std::thread::scope(|scope| {
        let running: Vec<_> = items
            .iter()
            .zip(&workers)
            .map(|(item, worker)| {
                scope.spawn(move || worker.install(|| with_parent(caller, || guarded(item))))
            })
            .collect();
        let results = running.into_iter().map(|thread| thread.join());
        results
            .map(|result| result.unwrap_or_else(panicked))
            .collect()
    });
    drop(single_threaded);
    give_back(workers);
    Ok(results)
}

fn panicked<T>(panic: Box<dyn Any + Send>) -> Result<T> {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
    Err(Error::Panicked(
        message.unwrap_or("without a message").into(),
    ))
}

/// ∂loss/∂θ.
pub(super) fn gradient(parameters: &Parameters, loss: &Tensor) -> Result<Vec<f64>> {
    let gradient = first_order(parameters, loss)?;
    parameters.flatten(gradient.iter())
}

/// ∂⟨∂loss/∂θ, v⟩/∂θ for each v, given as one tensor per parameter. They share the gradient's graph.
pub(super) fn hvps(
    parameters: &Parameters,
    loss: &Tensor,
    vectors: &[Vec<Tensor>],
) -> Result<Vec<Vec<f64>>> {
    let gradient = first_order(parameters, loss)?;
    let product = |v: &Vec<Tensor>| {
        let second = second_order(&gradient, v)?;
        let rows = parameters.iter().map(|(name, var)| {
            second.get(var).ok_or_else(|| Error::NoSecondDerivative {
                parameter: name.clone(),
                cause:
                    "its gradient does not depend on any parameter. Look for an operation whose \
                        backward pass cuts the graph"
                        .into(),
            })
        });
        parameters.flatten(rows.collect::<Result<Vec<_>>>()?.into_iter())
    };
    vectors.iter().map(product).collect()
}

/// Jᵀ C J v for each v, where J is the Jacobian of the outputs z in θ and `bend` maps z and Jv to CJv.
///
/// Jv takes two backward passes: Jᵀu is linear in u, and the derivative of ⟨Jᵀu, v⟩ in u is Jv. All v share the
/// first.
pub(super) fn jacobian_sandwiches(
    parameters: &Parameters,
    z: &Tensor,
    vectors: &[Vec<Tensor>],
    bend: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Vec<Vec<f64>>> {
    let u = Var::from_tensor(&z.zeros_like()?.detach())?;
    let pulled = first_order(parameters, &(z * u.as_tensor())?.sum_all()?)?;
    let product = |v: &Vec<Tensor>| {
        let along = second_order(&pulled, v)?;
        let rz = along.get(&u).ok_or_else(|| {
            Error::invalid(
                "an operation cuts the graph of the outputs' derivative along a direction",
            )
        })?;
        let weights = bend(&z.detach(), &rz.detach())?.detach();
        gradient(parameters, &(z * weights)?.sum_all()?)
    };
    vectors.iter().map(product).collect()
}

/// Gradient of a loss in the outputs z.
pub(super) fn output_gradient(
    loss: impl Fn(&Tensor) -> Result<Tensor>,
    z: &Tensor,
) -> Result<Tensor> {
    let z = Var::from_tensor(z)?;
    let gradients = loss(z.as_tensor())?.backward()?;
    let gradient = gradients.get(&z).map(Tensor::detach);
    gradient.ok_or_else(|| Error::invalid("the loss does not depend on the model's outputs"))
}

/// Hessian of a loss in the outputs z, times rz.
pub(super) fn output_hvp(
    loss: impl Fn(&Tensor) -> Result<Tensor>,
    z: &Tensor,
    rz: &Tensor,
) -> Result<Tensor> {
    let z = Var::from_tensor(z)?;
    let gradients = loss(z.as_tensor())?.backward()?;
    let gradient = gradients.get(&z);
    let gradient = gradient
        .ok_or_else(|| Error::invalid("the loss does not depend on the model's outputs"))?;
    let second = (gradient * rz)?.sum_all()?.backward()?;
    Ok(match second.get(&z) {
        Some(product) => product.detach(),
        None => z.zeros_like()?,
    })
}

/// A gradient in the form that candle's optimizers take.
pub(crate) fn store(parameters: &Parameters, gradient: &[f64]) -> Result<GradStore> {
    // This is the only way to create an empty store.
    let mut store = Tensor::zeros((), DType::F32, &Device::Cpu)?.backward()?;
    for ((_, var), part) in parameters.iter().zip(parameters.unflatten(gradient)?) {
        store.insert(var, part);
    }
    Ok(store)
}

/// ∂loss/∂θ, one tensor per parameter.
fn first_order(parameters: &Parameters, loss: &Tensor) -> Result<Vec<Tensor>> {
    let mut gradients = loss.backward().map_err(|e| backward_error(e, 1))?;
    let found = parameters.iter().map(|(name, var)| {
        gradients.remove(var).ok_or_else(|| Error::NoGradient {
            parameter: name.clone(),
            cause: format!(
                "the loss does not depend on it, or an operation on the way cuts the graph, as \
                 detach() does. {FUSED}, or leave the parameter out"
            ),
        })
    });
    found.collect()
}

/// The derivatives of ⟨g, v⟩ for a gradient g.
fn second_order(g: &[Tensor], v: &[Tensor]) -> Result<GradStore> {
    let products = g.iter().zip(v).map(|(g, v)| (g * v)?.sum_all());
    let products = products.collect::<candle_core::Result<Vec<_>>>()?;
    let along = Tensor::stack(&products, 0)?.sum_all()?;
    along.backward().map_err(|e| backward_error(e, 2))
}

fn backward_error(error: candle_core::Error, order: u8) -> Error {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => backward_error(*inner, order),
        candle_core::Error::BackwardNotSupported { op } => Error::NotDifferentiable {
            op: op.into(),
            order,
        },
        other => other.into(),
    }
}

/// While one exists, each matrix product runs on a single thread. Parallel batches, each on one thread, take less
/// than half the time of products that each use all threads.
struct SingleThreadedProducts;

/// The number of instances, and the threshold before the first.
static SINGLE_THREADED: Mutex<(usize, usize)> = Mutex::new((0, 0));

impl SingleThreadedProducts {
    fn begin() -> Self {
        let mut state = SINGLE_THREADED
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if state.0 == 0 {
            state.1 = gemm::get_threading_threshold();
            gemm::set_threading_threshold(usize::MAX);
        }
        state.0 += 1;
        Self
    }
}

impl Drop for SingleThreadedProducts {
    fn drop(&mut self) {
        let mut state = SINGLE_THREADED
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.0 -= 1;
        if state.0 == 0 {
            gemm::set_threading_threshold(state.1);
        }
    }
}

/// Number of batches that keep all processors busy.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(rayon::current_num_threads)
}

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Idle workers.
static IDLE: Mutex<Vec<ThreadPool>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<ThreadPool>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An idle worker, or a new one: a single-threaded pool that can differentiate twice. Parallel loops in a forward
/// pass stay on that thread.
fn take_worker() -> Result<ThreadPool> {
    match idle().pop() {
        Some(worker) => Ok(worker),
        None => start_worker().map_err(Error::invalid),
    }
}

/// Keeps at most one idle worker per processor; the other threads end.
fn give_back(workers: Vec<ThreadPool>) {
    let mut idle = idle();
    let room = processors().saturating_sub(idle.len());
    idle.extend(workers.into_iter().take(room));
}

fn start_worker() -> std::result::Result<ThreadPool, String> {
    one_thread_an_operation();
    let worker = ThreadPoolBuilder::new()
        .num_threads(1)
        .thread_name(|_| "objective".into())
        .stack_size(STACK_BYTES)
        .build()
        .map_err(|e| format!("worker threads cannot be started: {e}"))?;
    let second = worker.install(|| {
        IS_WORKER.set(true);
        first_backward().and_then(|()| second_derivative_of_cube())
    });
    match second {
        Ok(Some(6.0)) => Ok(worker),
        wrong => Err(format!(
            "candle does not differentiate twice here: d²(x³)/dx² at 1 is {wrong:?} \
             instead of 6"
        )),
    }
}

/// Calls `backward` for the first time on this thread, with the graph kept.
fn first_backward() -> candle_core::Result<()> {
    with_variable(KEEP_GRAPH, || {
        Var::new(1f64, &Device::Cpu)?.sqr()?.backward().map(drop)
    })
}

/// Initialises candle's pool for element-wise operations without extra threads, if it does not exist yet.
fn one_thread_an_operation() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os(OPERATION_THREADS).is_none() {
            with_variable(OPERATION_THREADS, || {
                candle_core::utils::barrier_pool();
            });
        }
    });
}

/// Calls `f` with an environment variable set to 1.
#[allow(unsafe_code)]
fn with_variable<T>(name: &str, f: impl FnOnce() -> T) -> T {
    static ENVIRONMENT: Mutex<()> = Mutex::new(());
    let _one_at_a_time = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let before = std::env::var_os(name);
    // SAFETY: Rust code reads and writes the environment under the standard library's lock. C code
    // that called `getenv` in this moment could race, as with any use of `set_var`; candle offers
    // no other way, and `f` is short.
    unsafe { std::env::set_var(name, "1") };
    let result = f();
    unsafe {
        match before {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
    result
}

fn second_derivative_of_cube() -> candle_core::Result<Option<f64>> {
    let x = Var::new(1f64, &Device::Cpu)?;
    let cube = (x.sqr()? * x.as_tensor())?;
    let Some(first) = cube.backward()?.remove(&x) else {
        return Ok(None);
    };
    let second = first.backward()?;
    second.get(&x).map(|d| d.to_scalar()).transpose()
}
