"""The kernel compiles a cell without cargo if nothing else has changed, and detects other changes."""

import os
import subprocess

import pytest
from conftest import INSTALLED

CELL = """[package]
name = "ctx"
version = "1.0.0"
edition = "2024"
[lib]
crate-type = ["cdylib"]
[dependencies]
helper = { path = "../../helper" }
"""


@pytest.fixture
def build(tmp_path):
    """Builds or checks a cell as the kernel does. Returns whether it succeeded and whether cargo ran."""
    files = {
        "kernel/Cargo.toml": '[workspace]\nresolver = "3"\nmembers = ["cell"]\n',
        "kernel/cell/Cargo.toml": CELL,
        "helper/Cargo.toml": '[package]\nname = "helper"\nversion = "0.1.0"\nedition = "2024"\n',
        "helper/src/lib.rs": "mod part;\npub use part::one;",
        "helper/src/part.rs": "pub fn one() -> i32 { 1 }",
        "kernel/cell/src/lib.rs": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    cargo = subprocess.check_output(["sh", "-c", "rustup which cargo || command -v cargo"], text=True).strip()
    target = subprocess.check_output(["rustc", "--print", "host-tuple"], text=True).strip()
    environment = {**os.environ, "PATH": f"{INSTALLED / 'bin'}:{os.environ['PATH']}", "CARGO_TARGET_DIR": "target"}
    environment.pop("RUSTC_WRAPPER", None)

    def build(code, command="build"):
        cell = tmp_path / "kernel/cell"
        (cell / "src/lib.rs").write_text(code)
        command_line = ["mold", "-run", cargo, "--offline", command, "--target", target, "--message-format=json"]
        done = subprocess.run(command_line, cwd=cell, env=environment, capture_output=True, text=True)
        return done.returncode == 0, '"build-finished"' in done.stdout

    return build


def test_a_changed_cell_is_compiled_without_cargo(build):
    assert build("pub fn f() -> i32 { helper::one() }") == (True, True)
    build("pub fn f() -> i32 { helper::one() + 1 }")
    assert build("pub fn f() -> i32 { helper::one() + 2 }") == (True, False)
    assert build('pub fn f() -> i32 { "three" }') == (False, False)
    assert build("pub fn f() -> i32 { helper::one() + 4 }") == (True, False)


def test_a_check_reuses_the_compiled_dependencies(build, tmp_path):
    """The kernel checks a cell with a variable that it cannot store. `cargo check` would check every dependency."""
    compiled = lambda: sorted(tmp_path.glob("kernel/cell/target/*/debug/deps/libhelper-*"))  # noqa: E731
    for code in range(2):
        assert build(f"pub fn f() -> i32 {{ helper::one() + {code} }}") == (True, True)
    before = compiled()
    assert before
    assert build('pub fn f() -> i32 { "three" }', "check") == (False, False)
    assert build("pub fn f() -> i32 { helper::one() + 2 }", "check") == (True, False)
    assert build("pub fn f() -> i32 { helper::one() + 3 }") == (True, False)
    assert compiled() == before


def test_a_check_before_any_build_compiles_the_dependencies(build):
    assert build("pub fn f() -> i32 { helper::one() }", "check") == (True, True)
    build("pub fn f() -> i32 { helper::one() + 1 }")
    assert build("pub fn f() -> i32 { helper::one() + 2 }") == (True, False)


@pytest.mark.parametrize("file, text", [
    ("helper/src/part.rs", "pub fn two() -> i32 { 2 }"),
    ("helper/Cargo.toml", '[package]\nname = "other"\nversion = "0.1.0"\nedition = "2024"\n'),
    ("kernel/cell/Cargo.toml", CELL.split("[dependencies]")[0]),
])
def test_a_change_elsewhere_is_detected(build, tmp_path, file, text):
    for code in range(3):
        assert build(f"pub fn f() -> i32 {{ helper::one() + {code} }}")[0]
    (tmp_path / file).write_text(text)
    assert not build("pub fn f() -> i32 { helper::one() }")[0]
