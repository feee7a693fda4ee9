"""Times a Hessian-vector product in a notebook cell, in the project's kernel. Prints one JSON line.

    .venv/bin/python benches/peers/cell.py W.safetensors
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]

CELLS = [
    f':dep loss-landscape = {{ path = "{ROOT}" }}\nuse loss_landscape::prelude::*;',
    f"""
let data = Mnist::load(&Device::Cpu)?.train.first(10_000)?;
let model = Mlp::new(&[784, 128, 128, 10], Activation::Sigmoid, 0, &Device::Cpu)?;
model.parameters().load("{Path(sys.argv[1]).resolve()}")?;
let hessian = Objective::of(&model, &data, Loss::CrossEntropy)?.hessian();
let v: Vec<f64> = (0..hessian.dim()).map(|j| (j as f64).sin()).collect();
""",
    """
let mut times = Vec::new();
for _ in 0..30 {
    let started = std::time::Instant::now();
    hessian.apply(&v)?;
    times.push(1e3 * started.elapsed().as_secs_f64());
}
times.sort_by(f64::total_cmp);
println!("{{\\"hvp_ms\\": {}}}", times[15]);
""",
]

notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
NotebookClient(notebook, timeout=300, kernel_name="loss-landscape").execute()
print(notebook.cells[-1].outputs[0].text.strip())
