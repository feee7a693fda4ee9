"""The kernel compiles a cell without cargo if nothing else has changed, and detects other changes."""

import os
import subprocess
import sys

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
    assert not build("pub fn f() -> i32 { helper::one() + 2 }")[0]


@pytest.fixture
def compiled(build, tmp_path):
    """Builds a cell after others, without cargo. Returns whether it succeeded and whether rustc ran."""
    for code in range(2):
        build(f"pub fn f() -> i32 {{ helper::one() + {code} }}")

    def compiled(code):
        succeeded, by_cargo = build(code)
        assert not by_cargo
        (folder,) = tmp_path.glob("kernel/cell/target/*-*/debug/deps")
        return succeeded, (folder / "ctx.d").exists()

    return compiled


def test_the_same_source_is_compiled_once(compiled, tmp_path):
    library = lambda: next(tmp_path.glob("kernel/cell/target/*-*/debug/libctx.so")).read_bytes()  # noqa: E731
    three, four = (f"#[unsafe(no_mangle)] pub extern \"C\" fn f{n}() -> i32 {{ helper::one() + {n} }}" for n in (3, 4))
    assert compiled(three) == (True, True)
    first = library()
    assert compiled(four) == (True, True)
    assert library() != first
    assert compiled(three) == (True, False)
    assert library() == first
    wrong = 'pub fn f() -> i32 { "three" }'
    assert compiled(wrong) == (False, True)
    assert compiled(wrong) == (False, False)
    assert compiled(four) == (True, False)


def test_a_source_that_reads_a_file_is_compiled_again(compiled, tmp_path):
    code = 'pub fn f() -> [u8; 3] { *include_bytes!("../../../text") }'
    assert compiled(code) == (False, True)
    for text in ("one", "two"):
        (tmp_path / "text").write_text(text)
        assert compiled(code) == (True, True)
    (tmp_path / "text").write_text("three")
    assert compiled(code) == (False, True)
    (tmp_path / "text").write_text("six")
    assert compiled(code) == (True, True)


def test_few_sources_are_kept(compiled, tmp_path):
    sys.path.insert(0, str(INSTALLED))
    import mold

    compiled("")
    (outcomes,) = tmp_path.glob("kernel/cell/target/cells/*/")
    for n in range(mold.OUTCOMES + 10):
        (outcomes / f"{n:032}").write_text("[1, \"\"]")
    assert compiled("pub fn f() -> i32 { helper::one() + 9 }") == (True, True)
    assert len([file for file in outcomes.iterdir() if not file.suffix]) == mold.OUTCOMES
    assert compiled("pub fn f() -> i32 { helper::one() + 9 }") == (True, False)


def test_a_lock_file_counts_without_the_packages_of_the_workspace():
    sys.path.insert(0, str(INSTALLED))
    import cargo

    package = lambda name, rest="": f'[[package]]\nname = "{name}"\nversion = "1.0.0"\n{rest}'  # noqa: E731
    lock = lambda *packages: "\n".join(["version = 4\n", *packages]).encode()  # noqa: E731
    plain = lock(package("a"), package("z"))
    member = package("ctx", 'dependencies = [\n "a",\n]\n')
    assert cargo.without_members(lock(package("a"), member, package("locked"), package("z"))) == plain
    assert cargo.without_members(lock(package("a"), package("ctxt"), package("z"))) != plain


def test_a_cell_of_another_session_is_compiled_without_cargo(monkeypatch, tmp_path):
    sys.path.insert(0, str(INSTALLED))
    import mold

    (tmp_path / "Cargo.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    known = mold.record_of(["cargo", "build"])
    monkeypatch.setenv("SSH_CONNECTION", "another")
    monkeypatch.setenv("TERM", "another")
    assert mold.record_of(["cargo", "build"]) == known
    monkeypatch.setenv("RUSTFLAGS", "-Copt-level=0")
    assert mold.record_of(["cargo", "build"]) != known
