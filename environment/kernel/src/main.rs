//! Evaluates the cells of a notebook. `kernel.py` starts this program and speaks Jupyter's protocol.
//!
//! There are three processes. The *evaluator* compiles cells with the evcxr library and answers requests. It starts the
//! *guard*, which evcxr takes for the process that runs cells. The guard forks the process that really *runs* them, and
//! reads what they print. It outlives a cell that crashes, so no output is lost.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod evaluator;
mod guard;
mod marks;
mod runner;

fn main() {
    if std::env::var_os("EVCXR_IS_RUNTIME").is_some() {
        guard::run();
    }
    // With `:cache`, evcxr runs this program instead of rustc.
    evcxr::runtime_hook();
    evaluator::run();
}
