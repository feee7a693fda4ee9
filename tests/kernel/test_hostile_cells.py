"""Cells that could break the kernel: each is answered, no output is lost, and the next cell works."""

import psutil
import pytest
from conftest import Kernel


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A kernel of this file: its cells fork and exit."""
    kernel = Kernel(tmp_path_factory.mktemp("own"))
    yield kernel
    kernel.stop()


@pytest.mark.parametrize("cell", ["", " \n\n", "// nothing", "/* a */\n// b\n", ":opt 1", ":opt 1\n:opt 1"])
def test_cells_without_code(own, cell):
    assert not {"error", "stderr", "stdout"} & own.run(cell).keys()
    assert own.shown("1") == "1"


@pytest.mark.parametrize("cell", ["}", "\n// no\n}", "} let a = 1;", "\0", "fn f( {", 'let s = "abc', ":no_such_command", "%%time\n1"])
def test_cells_that_are_not_rust(own, cell):
    assert own.run(cell)["ename"] == "CompilationError"
    assert own.shown("1") == "1"


def test_deeply_nested_code(own):
    own.shown("let kept = 3;")
    assert "error" in own.run("(" * 20_000 + "1" + ")" * 20_000)
    assert own.shown("kept") == "3"


def test_a_dependency_that_does_not_exist(own):
    own.shown("let kept = 3;")
    for dependency in ("no_such", '= { path = "/no/such" }', "{{{"):
        assert own.run(f":dep {dependency}\nlet kept = 4;")["ename"] == "CompilationError"
        assert own.shown("kept") == "3"


def test_characters(own):
    assert own.shown('let é = "🦀 日本\\u{202e}"; é') == "🦀 日本\u202e"
    assert own.run('print!("a\\0b\\0"); eprint!("\\0");') == {"stdout": "a\0b\0", "stderr": "\0"}
    assert own.run('println!("a\0b");') == {"stdout": "a\0b\n"}
    assert own.run('panic!("日本 🦀");')["error"] == "panicked in line 1: 日本 🦀"
    line = "x" * 300_000
    assert own.run(f'println!("{line}");') == {"stdout": line + "\n"}


@pytest.mark.parametrize("mime, content", [
    ("application/vnd.loss-landscape.progress+json", "{}"),
    ("application/vnd.loss-landscape.progress+json", '{"id": 1}'),
    ("application/json", '["\\ud800"]'),
])
def test_output_that_cannot_be_shown(own, mime, content):
    cell = f'println!("before"); println!("{{}}", r#"EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT"#); println!("after"); 5'
    outputs = own.run(cell)
    assert outputs["stdout"] == "before\nafter\n" and outputs["text/plain"] == "5", outputs
    assert "cannot be shown" in outputs["stderr"]
    assert own.shown("1") == "1"


def test_a_cell_that_closes_its_output(own):
    close = 'unsafe extern "C" { fn close(file: i32) -> i32; } unsafe { close(1); close(2); }'
    assert own.run(f'{{ {close} println!("lost"); }}') == {}
    assert own.run('println!("out"); eprintln!("err"); 7') == {"stdout": "out\n", "stderr": "err\n", "text/plain": "7"}


FORK = 'unsafe extern "C" { fn fork() -> i32; fn wait(status: *mut i32) -> i32; }'


def test_a_fork_that_goes_on(own):
    fork = f"{FORK} unsafe {{ if fork() > 0 {{ wait(std::ptr::null_mut()); }} }}"
    assert own.run(f'{{ {fork} }} println!("both");') == {"stdout": "both\nboth\n"}
    assert [own.shown(f"{n}") for n in range(3)] == ["0", "1", "2"]


def test_a_fork_that_outlives_its_process(own):
    own.run(f"{{ {FORK} if unsafe {{ fork() }} == 0 {{ std::thread::sleep(std::time::Duration::from_secs(300)); }} }}")
    assert "exit status 3" in own.run("std::process::exit(3);", limit=60)["error"]
    assert own.run("8")["text/plain"] == "8"


def test_a_process_that_ends_between_cells(own):
    own.run("""std::thread::spawn(|| {
    std::thread::sleep(std::time::Duration::from_millis(300));
    println!("last words");
    std::process::exit(4)
});""")
    cells = psutil.Process(own.manager.provisioner.pid).children(recursive=True)[-1]
    psutil.wait_procs([cells], 10)
    outputs = own.run("1")
    assert outputs["stdout"] == "last words\n" and "exit status 4" in outputs["error"], outputs
    assert own.run("2")["text/plain"] == "2"


def test_cleared_state(own):
    own.run(":clear")
    assert own.shown("1 + 1") == "2"
    assert own.shown("Tensor::new(2.5f64, &Device::Cpu)?.to_scalar::<f64>()?") == "2.5"
