"""What any client sees of the kernel: output, errors, interrupts and crashes, each with the cell that it belongs to."""

import shutil
import threading
import time

import pytest
from conftest import Kernel

WRITE = "use std::io::Write;"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A kernel of this file: its tests crash and interrupt it."""
    kernel = Kernel(tmp_path_factory.mktemp("own"))
    yield kernel
    kernel.stop()


def test_the_prelude_is_imported(own):
    assert own.shown("Tensor::new(2.5f64, &Device::Cpu)?.to_scalar::<f64>()?") == "2.5"


def test_text_without_a_newline(own):
    assert own.run('print!("loss = 0.5");') == {"stdout": "loss = 0.5"}
    assert own.shown("1 + 1") == "2"
    assert own.run('for i in 0..3 { print!("{i} "); }') == {"stdout": "0 1 2 "}
    assert own.run('eprint!("no newline");') == {"stderr": "no newline"}


def test_bytes_that_are_not_utf8(own):
    for stream in ("stdout", "stderr"):
        assert own.run(f'{WRITE} std::io::{stream}().write_all(b"caf\\xe9\\n")?;') == {stream: "caf\ufffd\n"}
    assert [own.shown(f"{n} + {n}") for n in (1, 10, 100)] == ["2", "20", "200"]


def test_characters_split_between_writes(own):
    cell = """use std::io::Write;
for byte in "é🦀".bytes() { let mut out = std::io::stdout().lock(); out.write_all(&[byte])?; out.flush()?; }"""
    assert own.run(cell) == {"stdout": "é🦀"}


def test_marks_of_evcxr_in_text(own):
    marks = ["EVCXR_EXECUTION_COMPLETE", "EVCXR_END_CONTENT", "EVCXR_INPUT_REQUEST:name", "EVCXR", "EVCXR_BEGIN"]
    for mark in marks:
        assert own.run(f'println!("{mark}");') == {"stdout": f"{mark}\n"}
        assert own.run(f'print!("{mark}");') == {"stdout": mark}
    assert own.shown("3 + 4") == "7"


def test_values_and_text_keep_their_order(own):
    cell = 'println!("before"); 1.evcxr_display(); println!("between"); 2.evcxr_display(); 3'
    own.client.execute(cell)
    seen = []
    while True:
        message = own.client.get_iopub_msg(timeout=60)
        content = message["content"]
        if message["msg_type"] == "status" and content["execution_state"] == "idle":
            break
        seen += [content["text"]] if "text" in content else [content["data"]["text/plain"]] if "data" in content else []
    assert seen == ["before\n", "1", "between\n", "2", "3"]


@pytest.mark.parametrize("cell, name, message", [
    ('std::fs::read_to_string("/no/such/file")?;', "Error", "No such file or directory (os error 2)"),
    ('print!("step 1 …"); let lost = 7; Err::<(), Error>(two_moons(1, 0.1, 0, &Device::Cpu).unwrap_err())?;', "Error",
     "two moons need at least 2 samples, found 1"),
    ('"seven".parse::<i32>()', "Error", "invalid digit found in string"),
    ('let n = 3;\npanic!("boom {n}");', "Panic", "panicked in line 2: boom 3"),
    ('let a = 1;\nlet b = 2; panic!("in a line");', "Panic", "panicked in line 2: in a line"),
    ('assert_eq!(1 + 1, 3, "sums");', "Panic", "panicked in line 1: assertion `left == right` failed: sums\n  left: 2\n right: 3"),
    ('let x: i32 = "seven";', "CompilationError", "mismatched types"),
    ("std::process::exit(3);", "ProcessEnded", "has ended (exit status 3). Variables are lost"),
    ("std::process::abort();", "ProcessEnded", "has ended (abort). Variables are lost"),
    ("unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };", "ProcessEnded", "has ended"),
])
def test_failures_are_errors(own, cell, name, message):
    outputs = own.run(cell)
    assert outputs["ename"] == name and message in outputs["error"], outputs
    assert not any(noise in outputs["error"] for noise in ("RUST_BACKTRACE", "src/lib.rs", "stack backtrace")), outputs
    assert "EVCXR" not in str(outputs)
    outputs = own.run("let after = 8;\nafter")
    assert outputs["text/plain"] == "8"
    assert ("variables of earlier cells are lost" in outputs.get("stderr", "")) == (name == "ProcessEnded")


def test_variables_survive_an_error_and_a_panic(own):
    own.shown("let mut kept = vec![1, 2, 3];")
    own.run('kept.push(4); Err::<(), Error>(two_moons(1, 0.1, 0, &Device::Cpu).unwrap_err())?;')
    own.run('panic!("on purpose");')
    assert own.shown("kept") == "[1, 2, 3, 4]"
    assert "cannot find value `lost`" in own.run("lost")["error"]


def test_the_cells_after_an_error_are_aborted(own):
    """As `Run All` sends them."""
    requests = [own.client.execute(cell) for cell in ("1", 'Err::<(), _>("stop")?', "2", "3")]
    assert [own.reply(request)["content"]["status"] for request in requests] == ["ok", "error", "aborted", "aborted"]
    time.sleep(0.2)
    while own.client.iopub_channel.msg_ready():
        own.client.get_iopub_msg()
    assert own.shown("4") == "4"


def test_standard_input_is_empty(own):
    outputs = own.run("let mut line = String::new(); std::io::stdin().read_line(&mut line)?; line.len()", limit=30)
    assert outputs["text/plain"] == "0" and "cannot read standard input" in outputs["stderr"]
    assert own.shown("5") == "5"


def test_long_output_is_cut(own):
    outputs = own.run('for i in 0..50_000 { println!("line {i}"); }', limit=60)
    assert outputs["stdout"].splitlines() == [f"line {i}" for i in range(5_000)]
    path = outputs["stderr"].rsplit(" in ", 1)[1].strip()
    with open(path) as file:
        assert file.read().splitlines() == [f"line {i}" for i in range(50_000)]
    outputs = own.run('for _ in 0..3 { print!("{}", "é".repeat(600_000)); }', limit=60)
    assert outputs["stdout"] == "é" * 1_000_000
    assert own.shown("8") == "8"


def test_many_cells_show_their_own_output(own):
    own.shown("fn twice(n: i32) -> i32 { 2 * n }")
    for i in range(40):
        outputs = own.run(f'struct S{i}; println!("out {i}"); eprintln!("err {i}"); twice({i})')
        assert outputs == {"stdout": f"out {i}\n", "stderr": f"err {i}\n", "text/plain": str(2 * i)}


def test_output_of_a_thread_that_outlives_its_cell(own):
    own.shown('std::thread::spawn(|| loop { std::thread::sleep(std::time::Duration::from_millis(300)); print!("."); });')
    time.sleep(1)
    outputs = own.run("std::thread::sleep(std::time::Duration::from_secs(1)); 9")
    assert outputs["text/plain"] == "9" and set(outputs.get("stdout", ".")) == {"."}
    own.run("std::process::exit(0);")
    own.run("1")


# An interrupt takes about a tenth of a second; a busy machine needs more.
INTERRUPT_SECONDS = 3


def interrupted(kernel, cell, after, presses=1, pause=3):
    """Runs a cell, interrupts it, and returns its outputs and the seconds from the last interrupt to its end."""
    pressed = []

    def press():
        time.sleep(after)
        for i in range(presses):
            if i:
                time.sleep(pause)
            pressed.append(time.monotonic())
            kernel.manager.interrupt_kernel()

    thread = threading.Thread(target=press)
    thread.start()
    outputs = kernel.run(cell, limit=60)
    ended = time.monotonic()
    thread.join()
    return outputs, ended - pressed[-1]


def test_an_interrupt_keeps_the_variables(own):
    own.shown("let kept = 5;")
    outputs, seconds = interrupted(own, "loop { std::thread::sleep(std::time::Duration::from_millis(10)); progress::check()?; }", 3)
    assert outputs == {"error": "interrupted", "ename": "Interrupted"}
    assert seconds < INTERRUPT_SECONDS
    assert own.shown("kept") == "5"


WORK = {
    "training": "Trainer::adam(0.001).with_batch_size(20).with_epochs(1_000_000).fit(&large, &points, &points)?;",
    "Lanczos": "for _ in 0..1_000_000 { Lanczos::default().with_tolerance(1e-15).run(&hessian, 20)?; }",
    "density": "DensitySettings::default().with_probes(1_000_000).run(&hessian)?;",
    "trace": """Trace::default().with_method(TraceMethod::Hutchinson).with_relative_error(1e-12)
    .with_max_products(1_000_000_000).trace(&hessian)?;""",
    "plane": "Plane::random(&work, 0, 1.0, 2_001)?;",
    "sweep": """let folder = std::env::temp_dir().join(format!("sweep-{}", std::process::id()));
{ let build = |_: u64| Mlp::new(&[2, 8, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64);
let trainer = Trainer::adam(0.01).with_batch_size(20).with_epochs(1_000_000);
Sweep::new([0.0, 0.01]).with_trainer(trainer).run(&folder, build, &points, &points)?; }""",
    "path": "PathTrainer::default().with_epochs(1_000_000).connect(&work, &theta, &vec![0.1; theta.len()])?;",
    "embedding": "Autoencoder::default().with_epochs(1_000_000_000).run(&rows)?;",
}


@pytest.fixture(scope="module")
def work(own):
    own.shown("""let points = two_moons(20_000, 0.1, 0, &Device::Cpu)?;
let large = Mlp::new(&[2, 64, 64, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
let work = Objective::of(&large, &points, Loss::CrossEntropy)?;
let hessian = work.hessian();
let theta = large.parameters().to_flat()?;
let rows: Vec<Vec<f64>> = (0..200).map(|i| (0..10).map(|j| f64::from(i * j).sin()).collect()).collect();""")


@pytest.mark.parametrize("kind", WORK)
def test_an_interrupt_ends_work(own, work, kind):
    outputs, seconds = interrupted(own, WORK[kind], 3)
    assert outputs.get("ename") == "Interrupted" and outputs["error"] == "interrupted", outputs
    assert seconds < INTERRUPT_SECONDS
    assert own.shown("theta.len()") == "4417", "variables are lost"


def test_progress_is_one_line_that_is_updated(own, work):
    outputs, _ = interrupted(own, WORK["training"], 4)
    states = outputs["progress"]
    assert len(states) > 3 and states[0].startswith("training: ") and " left" in states[1], states
    assert states[-1] == "" and all(states[:-1])
    assert not {"stdout", "stderr"} & outputs.keys()


def test_tasks_of_a_cell_share_the_line_of_progress(own):
    cell = """for id in 0..3 { for done in [false, true] {
    let state = format!(r#"{{"id": {id}, "task": "task {id}", "status": "s", "fraction": null, "left_seconds": null, "done": {done}}}"#);
    println!("EVCXR_BEGIN_CONTENT application/vnd.loss-landscape.progress+json\\n{state}\\nEVCXR_END_CONTENT");
} }"""
    request = own.client.execute(cell)
    messages = []
    while True:
        message = own.client.get_iopub_msg(timeout=60)
        if message["parent_header"]["msg_id"] != request:
            continue
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            break
        if "transient" in message["content"]:
            messages.append((message["msg_type"], message["content"]["transient"]["display_id"], message["content"]["data"]["text/plain"]))
    own.reply(request)
    kinds, lines, texts = zip(*messages)
    assert kinds == ("display_data", *["update_display_data"] * 5) and len(set(lines)) == 1
    assert texts == ("task 0: s", "", "task 1: s", "", "task 2: s", "")


def test_an_interrupt_while_a_cell_is_compiled(own):
    outputs, seconds = interrupted(own, 'println!("ran"); 1', 0.15)
    assert seconds < INTERRUPT_SECONDS
    assert own.shown("6") == "6"


def test_a_second_interrupt_ends_the_process(own):
    own.shown("let lost = 5; fn stays() -> i32 { 7 }")
    cell = "std::thread::sleep(std::time::Duration::from_secs(60));"
    outputs, seconds = interrupted(own, cell, 2, presses=2)
    assert outputs["ename"] == "Interrupted" and "interrupted twice" in outputs["error"], outputs
    assert "Interrupt it again" in outputs["stderr"]
    assert seconds < INTERRUPT_SECONDS
    outputs = own.run("stays()")
    assert outputs["text/plain"] == "7" and "are lost" in outputs["stderr"]
    assert "cannot find value `lost`" in own.run("lost")["error"]


def complete(kernel, code, position=None):
    return kernel.reply(kernel.client.complete(code, position))["content"]


def inspect(kernel, code, position=None):
    return kernel.reply(kernel.client.inspect(code, position))["content"]


@pytest.fixture(scope="module")
def objective(own):
    own.run("""let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
let model = Mlp::new(&[2, 4, 2], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
let numbers = vec![1.0, 2.0];""")


def test_completion(own, objective):
    found = complete(own, "objective.")
    assert {"loss()", "gradient()", "hessian()"} <= {match.partition("(")[0] + "()" for match in found["matches"]}
    found = complete(own, "let é = 1; numbers.is_em")
    assert found["matches"] == ["is_empty()"]
    assert (found["cursor_start"], found["cursor_end"]) == (19, 24)


@pytest.mark.parametrize("code", ["Plane::random(&da", "figure::spectrum(&ob", "let x: f64 = ob", ":dep", "", "objective.no_such_"])
def test_completion_cannot_harm(own, objective, code):
    assert complete(own, code)["status"] == "ok"
    assert own.shown("numbers.len()") == "2"


def test_inspection(own, objective):
    for code, position in (("objective.gradient()?", 12), ("objective.gradient(", 19), ("let g = objective.gradient()?;\ng", 22)):
        found = inspect(own, code, position)
        assert found["found"] and "gradient" in found["data"]["text/plain"], (code, found)
    assert not inspect(own, "objective.no_such_name", 15)["found"]
    assert own.shown("1") == "1"


def test_history_and_kernel_info_are_answered(own):
    assert own.reply(own.client.history(hist_access_type="tail", n=5), 10)["content"]["status"] == "ok"
    assert own.reply(own.client.kernel_info(), 10)["content"]["language_info"]["name"] == "rust"


def test_incomplete_code(own):
    for code, status in (("fn f() {", "incomplete"), ("fn f() { 1 }", "complete"), ('print!("{{");', "complete"), ("let c = '(';", "complete")):
        assert own.reply(own.client.is_complete(code), 10)["content"]["status"] == status


def test_a_kernel_without_cargo_in_the_search_path(tmp_path):
    kernel = Kernel(tmp_path, PATH="/usr/bin:/bin")
    try:
        assert kernel.shown("1 + 1") == "2"
    finally:
        kernel.stop()


@pytest.mark.skipif(shutil.which("rustc", path="/usr/bin:/bin") is not None, reason="Rust is part of the system")
def test_a_kernel_without_rust(tmp_path):
    (tmp_path / "cargo").mkdir()
    kernel = Kernel(tmp_path, PATH="/usr/bin:/bin", CARGO_HOME=str(tmp_path / "cargo"))
    try:
        outputs = kernel.run("1 + 1")
        assert outputs["ename"] == "KernelError" and "Install Rust with rustup" in outputs["error"]
        assert "error" in kernel.run("2")
    finally:
        kernel.stop()
