"""The set-up: checks before any work, the choice of a device, one line of progress, and clones that moved."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT / "environment"))
import builds
import cargo_progress
import compile as set_up
import compile_crate
import compile_kernel
import install_kernel
from cargo_progress import Build
from compile_crate import cuda, launch

TOOLS = "awk bash cat cut df dirname grep head mkdir mv realpath rm sed sha256sum sh sort tail uname".split()
RUSTC = """case "$*" in
    -vV) printf 'rustc 1.95.0\\nhost: x86_64-unknown-linux-gnu\\nrelease: 1.95.0\\n' ;;
    *sysroot*) echo "$SYSROOT" ;;
esac"""
PYTHON = """case "$*" in
    --version) echo Python 3.12.0 ;;
    "-m venv .venv") mkdir -p .venv/bin; printf '#!/bin/sh\\n' > .venv/bin/python; /bin/chmod +x .venv/bin/python ;;
esac"""


class Clone:
    """A clone with the set-up's scripts, on a machine whose programs are fakes."""

    def __init__(self, folder):
        self.folder, self.programs, self.cache = folder / "clone", folder / "programs", folder / "cache"
        (self.folder / "environment").mkdir(parents=True)
        for file in (PROJECT / "environment").glob("*"):
            if file.suffix in (".sh", ".txt"):
                shutil.copy(file, self.folder / "environment")
        self.programs.mkdir()
        for tool in TOOLS:
            (self.programs / tool).symlink_to(shutil.which(tool, path="/usr/local/bin:/usr/bin:/bin"))
        (folder / "sysroot/lib/rustlib/src/rust/library/core").mkdir(parents=True)
        self.environment = {"SYSROOT": str(folder / "sysroot"), "HOME": str(folder), "LOSS_LANDSCAPE_CACHE": str(self.cache)}
        for name, text in {"rustc": RUSTC, "cargo": "", "cc": "", "python3": PYTHON}.items():
            self.fake(name, text)
        self.fake("df", "printf 'Filesystem 1K Used Available\\n/dev/x 9 9 %s 1%% /\\n' \"${FREE:-99000000}\"")

    def fake(self, name, text):
        program = self.programs / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)

    def run(self, script="checks.sh", *arguments, **environment):
        """The exit code of a script, and what it prints."""
        done = subprocess.run(
            ["bash", self.folder / "environment" / script, *arguments],
            env={"PATH": str(self.programs), **self.environment, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        return done.returncode, done.stdout


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


def test_a_complete_machine_passes_without_a_word(clone):
    assert clone.run() == (0, "")


@pytest.mark.parametrize(
    ("program", "text", "said"),
    [
        ("cargo", None, "Rust is missing: install it with rustup"),
        ("rustc", RUSTC.replace("1.95.0", "1.89.1"), "rustc 1.89.1 is too old: install 1.95 or newer"),
        ("rustc", "echo 'error: damaged' >&2; exit 1", "rustc does not run: install Rust again. rustc says: error: damaged"),
        ("rustc", RUSTC.replace("-gnu", "-musl"), "Rust does not build with musl"),
        ("cc", None, "A C compiler is missing"),
        ("cc", "exit 1", "install the C library's headers"),
        ("python3", None, "Python is missing"),
        ("python3", 'case "$*" in --version) echo Python 3.10.2 ;; *version_info*) exit 1 ;; esac', "Python 3.10.2 is too old"),
        ("python3", 'case "$*" in *venv*) exit 1 ;; esac', "Python's venv module is missing"),
        ("uname", "echo Darwin", "macOS: the kernel does not work here"),
        ("uname", 'case "$1" in -s) echo Linux ;; -m) echo riscv64 ;; esac', "riscv64: the kernel needs x86-64 or aarch64"),
    ],
)
def test_a_problem_is_said_with_its_remedy(clone, program, text, said):
    if text is None:
        (clone.programs / program).unlink()
    else:
        clone.fake(program, text)
    code, printed = clone.run()
    assert code == 1
    assert said in printed
    assert not (clone.folder / ".venv").exists()


def test_a_newer_rustc_passes(clone):
    clone.fake("rustc", RUSTC.replace("1.95.0", "1.100.0"))
    assert clone.run() == (0, "")


def test_rustup_without_a_toolchain(clone):
    refusal = "rustup could not choose a version of rustc to run"
    for proxy in ("rustc", "cargo"):
        clone.fake(proxy, f"echo 'error: {refusal}' >&2; exit 1")
    clone.fake("rustup", "")
    code, printed = clone.run()
    assert code == 1
    assert "run `rustup default stable`" in printed and refusal in printed


def test_all_problems_are_said_at_once(clone):
    for program in ("cargo", "cc", "python3"):
        (clone.programs / program).unlink()
    code, printed = clone.run(FREE="1000000")
    assert code == 1
    for said in ("Rust is missing", "C compiler is missing", "Python is missing", "0 GiB are free, and the set-up needs about 10"):
        assert said in printed


def test_a_later_set_up_needs_little_space(clone):
    assert clone.run(FREE="9000000")[0] == 1
    (clone.cache / "dependencies-of-a-version").mkdir(parents=True)
    (clone.folder / ".venv").mkdir()
    assert clone.run(FREE="9000000") == (0, "")
    assert clone.run(FREE="900000")[0] == 1


@pytest.mark.parametrize("name", ["a:b", 'a"b', "a\\b"])
def test_paths_that_cannot_work_are_refused(clone, name):
    cache = clone.cache / name
    code, printed = clone.run(LOSS_LANDSCAPE_CACHE=str(cache))
    assert code == 1 and "The path of the cache contains" in printed and not cache.exists()
    moved = clone.folder.with_name(name)
    clone.folder = clone.folder.rename(moved)
    code, printed = clone.run()
    assert code == 1 and "The path of the checkout contains" in printed


def test_a_relative_cache_is_refused(clone):
    code, printed = clone.run(LOSS_LANDSCAPE_CACHE="cache")
    assert code == 1 and "not absolute" in printed


def test_missing_sources_of_rust_are_installed(clone):
    shutil.rmtree(clone.environment["SYSROOT"])
    code, printed = clone.run()
    assert code == 1 and "Rust's sources are missing" in printed
    clone.fake("rustup", f'echo "$@" > {clone.folder}/called')
    assert clone.run("setup.sh")[0] == 0
    assert "component add rust-src" in (clone.folder / "called").read_text()
    clone.fake("rustup", "exit 1")
    code, printed = clone.run("setup.sh")
    assert code == 1 and "Rust's sources could not be installed" in printed


def test_a_moved_clone_gets_a_new_virtual_environment(clone):
    installs = "installing Jupyter"
    assert installs in clone.run("setup.sh")[1]
    assert installs not in clone.run("setup.sh")[1]
    clone.folder = clone.folder.rename(clone.folder.with_name("moved clone"))
    assert installs in clone.run("setup.sh")[1]
    assert installs not in clone.run("setup.sh")[1]
    clone.fake("python3", PYTHON.replace("3.12.0", "3.13.1"))
    assert installs in clone.run("setup.sh")[1]


def test_the_set_up_finds_cargo_outside_of_the_search_path(clone):
    programs = clone.folder.parent / ".cargo/bin"
    programs.mkdir(parents=True)
    for name in ("cargo", "rustc"):
        (clone.programs / name).rename(programs / name)
    code, printed = clone.run("setup.sh")
    assert code == 0, printed


def test_the_kernels_programs_run_from_any_path(tmp_path):
    folder = tmp_path / f"a 'folder' with {'a long name ' * 15}"
    folder.mkdir()
    (folder / "shim.py").write_text("import sys\ndef main(arguments):\n    print(sys.argv[0], arguments)\n    return 3\n")
    program = folder / "bin/shim"
    install_kernel.write_program(program, folder, "shim")
    done = subprocess.run([program, "an argument", "'$x'"], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == (f"{program} ['an argument', \"'$x'\"]\n", 3)


def test_an_unknown_option_is_refused(clone):
    code, printed = clone.run("setup.sh", "--gpu")
    assert code == 2 and "unknown option --gpu" in printed


# --- CUDA, with fakes of nvcc and nvidia-smi

NVCC = "echo 'Cuda compilation tools, release 12.6, V12.6.20'"
NVIDIA_SMI = """case "$*" in
    *compute_cap*) echo 8.6; echo 9.0 ;;
    *) echo '| NVIDIA-SMI 570.1   Driver Version: 570.1   CUDA Version: 12.8 |' ;;
esac"""
LIBRARIES = ("cublas", "cublasLt", "cudart", "curand", "nvrtc")


class Toolkit:
    """A CUDA toolkit whose compiler is a fake."""

    def __init__(self, folder, nvcc=NVCC):
        self.folder = folder
        for name in ("bin", "lib64/stubs"):
            (folder / name).mkdir(parents=True)
        (folder / "bin/nvcc").write_text(f"#!/bin/sh\n{nvcc}\n")
        (folder / "bin/nvcc").chmod(0o755)
        for name in LIBRARIES:
            (folder / f"lib64/lib{name}.so").touch()
        (folder / "lib64/stubs/libcuda.so").touch()


@pytest.fixture
def gpu(clone):
    """A clone on a machine with a GPU and a CUDA toolkit in its search path."""
    clone.toolkit = Toolkit(clone.folder.parent / "cuda-12.6")
    (clone.programs / "nvcc").symlink_to(clone.toolkit.folder / "bin/nvcc")
    clone.fake("nvidia-smi", NVIDIA_SMI)
    clone.fake("g++", "")
    return clone


def test_a_complete_machine_with_a_gpu_passes_without_a_word(gpu):
    assert gpu.run("checks.sh", "--cuda") == (0, "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda gpu: (gpu.programs / "nvcc").unlink(), "nvcc is missing: install the CUDA toolkit"),
        (lambda gpu: (gpu.programs / "nvcc").unlink(), "or run environment/cuda_toolkit.sh, which downloads CUDA 13.0"),
        (lambda gpu: gpu.fake("nvcc", "exit 1"), "nvcc does not run: install the CUDA toolkit again"),
        (lambda gpu: (gpu.toolkit.folder / "lib64/libcurand.so").unlink(), "lacks libcurand.so: install its development libraries"),
        (lambda gpu: (gpu.programs / "nvidia-smi").unlink(), "No NVIDIA GPU is found: nvidia-smi is missing or reports none."),
        (lambda gpu: gpu.fake("nvidia-smi", "echo 'No devices were found'; exit 6"), "Without --cuda, cells run on the CPU."),
        (lambda gpu: gpu.fake("nvidia-smi", NVIDIA_SMI.replace("12.8", "12.4")), "The driver supports CUDA 12.4, and"),
        (lambda gpu: (gpu.programs / "g++").unlink(), "A C++ compiler is missing, which nvcc needs"),
    ],
)
def test_a_machine_that_cannot_use_cuda_is_said_before_any_work(gpu, change, said):
    change(gpu)
    code, printed = gpu.run("setup.sh", "--cuda")
    assert code == 1
    assert said in printed and "nothing was installed" in printed
    assert not (gpu.folder / ".venv").exists()
    assert gpu.run("setup.sh")[0] == 0


def test_a_kernel_for_the_gpu_of_another_machine(gpu):
    (gpu.programs / "nvidia-smi").unlink()
    code, printed = gpu.run("checks.sh", "--cuda", CUDA_COMPUTE_CAP="90")
    assert code == 0 and "`best_device()` is the CPU until there is a GPU" in printed
    code, printed = gpu.run("checks.sh", "--cuda", CUDA_COMPUTE_CAP="9.0")
    assert code == 1 and "CUDA_COMPUTE_CAP=9.0 is not a compute capability: write 90 for 9.0" in printed


def test_the_set_up_passes_the_toolkit_and_the_gpu_on(gpu):
    assert gpu.run("setup.sh")[0] == 0
    (gpu.folder / ".venv/bin/python").write_text(
        '#!/bin/sh\necho "$@" in "$CUDA_HOME" version "$CUDARC_CUDA_VERSION" capability "$CUDA_COMPUTE_CAP"\n'
    )
    passed = lambda home, version: f"--cuda in {home} version {version} capability 86"
    assert passed(gpu.toolkit.folder, 12060) in gpu.run("setup.sh", "--cuda")[1]
    assert "environment/compile.py in  version  capability \n" in gpu.run("setup.sh")[1]
    # A toolkit that the environment names comes first, and a downloaded one last.
    other = Toolkit(gpu.folder.parent / "other", NVCC.replace("12.6", "11.8"))
    assert passed(other.folder, 11080) in gpu.run("setup.sh", "--cuda", CUDA_HOME=str(other.folder))[1]
    (gpu.programs / "nvcc").unlink()
    downloaded = Toolkit(gpu.cache / "cuda-1234/nvidia/cu13")
    if not Path("/usr/local/cuda").exists():
        assert passed(downloaded.folder, 12060) in gpu.run("setup.sh", "--cuda")[1]


@pytest.fixture
def crate(tmp_path, monkeypatch):
    """Prepares a build of the crate for notebooks after a set-up with options, in an empty cache."""
    monkeypatch.setenv("LOSS_LANDSCAPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_HOME", str(Toolkit(tmp_path / "toolkit").folder))
    monkeypatch.setenv("CUDA_COMPUTE_CAP", "86")
    monkeypatch.setenv("CUDARC_CUDA_VERSION", "12060")

    def prepare(*options):
        set_up.choose_device(options)
        found = compile_crate.Crate(tmp_path / "cache/dependencies")
        found.cargo = found.build()
        os.close(found.lock)
        return found

    return prepare


def features(crate, cell=""):
    """The features of packages in the workspace of a kernel, for a cell with these settings in its `:dep`."""
    launch.write(crate.directory / "cell/Cargo.toml", compile_crate.CELL_MANIFEST
                 + f'[dependencies]\nloss-landscape = {{ path = "{PROJECT}"{cell} }}\n')
    host = compile_kernel.host()[0]
    command = ["cargo", "metadata", "--offline", "--format-version=1", "--filter-platform", host]
    found = json.loads(subprocess.check_output(command, cwd=crate.directory / "cell", text=True))
    names = {package["id"]: package["name"] for package in found["packages"]}
    return {names[node["id"]]: node["features"] for node in found["resolve"]["nodes"]}


def test_every_cell_gets_the_crate_with_cuda(crate):
    plain = crate()
    assert "cuda" not in features(plain)["loss-landscape"] and "candle-kernels" not in features(plain)
    with_cuda = crate("--cuda")
    for cell in ("", ', features = ["tables"]'):
        found = features(with_cuda, cell)
        assert all("cuda" in found[name] for name in ("loss-landscape", "candle-core", "candle-nn"))
        assert "candle-kernels" in found


def test_the_choice_of_a_device_is_kept(crate, tmp_path, monkeypatch):
    plain, with_cuda = crate(), crate("--cuda")
    for name in ("CUDA_HOME", "CUDA_COMPUTE_CAP", "CUDARC_CUDA_VERSION"):
        monkeypatch.delenv(name)
    later = crate()
    assert with_cuda.state == later.state != plain.state
    variables = later.cargo.environment
    assert variables["CUDA_HOME"] == str(tmp_path / "toolkit") and variables["NVCC"] == str(tmp_path / "toolkit/bin/nvcc")
    assert (variables["CUDA_COMPUTE_CAP"], variables["CUDARC_CUDA_VERSION"]) == ("86", "12060")
    # A kernel builds with the same variables, or cargo would compile CUDA code again.
    assert variables.items() >= cuda.variables(later.home).items()
    again = crate("--cpu")
    assert again.state == plain.state and "cuda" not in features(again)["loss-landscape"]
    assert not {"CUDA_HOME", "NVCC"} & again.cargo.environment.keys()


def test_a_missing_toolkit_is_said(crate, tmp_path):
    crate("--cuda")
    shutil.rmtree(tmp_path / "toolkit")
    with pytest.raises(SystemExit) as stopped:
        set_up.choose_device([])
    assert "nvcc is missing. Run environment/setup.sh --cuda to use another, or environment/setup.sh --cpu" in str(stopped.value)


@pytest.mark.parametrize("driver", [True, False])
def test_cells_start_without_a_driver(crate, tmp_path, monkeypatch, driver):
    monkeypatch.setattr(cuda, "has_driver", lambda: driver)
    assert launch.cuda_libraries(crate().home) == []
    home = crate("--cuda").home
    found = launch.cuda_libraries(home)
    assert found[0] == tmp_path / "toolkit/lib64"
    assert found[1:] == ([] if driver else [home / "driver"])
    if not driver:
        assert (home / "driver/libcuda.so.1").resolve() == tmp_path / "toolkit/lib64/stubs/libcuda.so"


# --- progress

# What cargo 1.95 prints to a pipe, shortened.
RECORDED = (
    b"   Compiling serde_core v1.0.229\n   Compiling zmij v1.0.21\n"
    b"    Building [                      ] 0/14: zmij(build.rs), serde_core(build.rs)   \r"
    b"    Building [=====>                ] 4/14: anyhow(build.rs), serde_json(build.rs) \r   Compiling itoa v1.0.18\n"
    b"    Building [============>         ] 9/14: itoa, serde_core                       \r"
    b"error[E0432]: unresolved import `x`\n --> src/lib.rs:1:5\n  |\n1 | use x::y;\n  |     ^\n\n"
    b"error: could not compile `itoa` (lib) due to 1 previous error\n"
)


def recorded(tmp_path, printed=RECORDED, code=0, seconds=0):
    """A build whose cargo prints something recorded."""
    file = tmp_path / "recorded"
    file.write_bytes(printed)
    return Build("the crate", ["sh", "-c", f"cat '{file}'; sleep {seconds}; exit {code}"], tmp_path / "log/build.log")


def test_cargo_is_counted_and_logged(tmp_path):
    build = recorded(tmp_path)
    build.run()
    assert (build.done, build.total, build.code) == (9, 14, 0)
    assert build.progress() == "the crate: 9 of 14 packages"
    logged = build.log.read_text()
    assert "Compiling itoa" in logged and "use x::y" in logged and "Building" not in logged


def test_only_the_errors_of_a_failed_build_are_shown(tmp_path, capsys):
    build = recorded(tmp_path, code=101)
    with pytest.raises(SystemExit) as stopped:
        cargo_progress.run([build], at_once=True)
    shown = capsys.readouterr().err
    assert "unresolved import `x`" in shown and "1 | use x::y;\n  |     ^\n\nerror: could" in shown and "could not compile `itoa`" in shown
    assert "Compiling" not in shown and "Building" not in shown
    assert str(build.log) in str(stopped.value)


def test_damaged_incremental_data_are_built_again(tmp_path):
    data = tmp_path / "target/x/debug/incremental"
    data.mkdir(parents=True)
    damaged = f"if [ -d {data} ]; then echo 'rust-lld: error: undefined hidden symbol: f'; exit 101; fi; sleep 0.5; echo linked"
    build = Build("the crate", ["sh", "-c", damaged], tmp_path / "build.log", environment={"CARGO_TARGET_DIR": str(tmp_path / "target")})
    cargo_progress.run([build], at_once=True)
    assert build.code == 0 and build.log.read_text().endswith("linked\n")


def test_a_failure_ends_the_other_build(tmp_path):
    (tmp_path / "other").mkdir()
    other = Build("the kernel", ["sleep", "60"], tmp_path / "other.log")
    start = time.monotonic()
    with pytest.raises(SystemExit):
        cargo_progress.run([other, recorded(tmp_path, code=101)], at_once=True)
    assert other.code != 0 and time.monotonic() - start < 10


def test_builds_run_at_once_or_one_after_the_other(tmp_path):
    for at_once in (True, False):
        builds = [Build(name, ["sh", "-c", f"date +%s%N > {tmp_path}/{name}; sleep 0.6"], tmp_path / f"{name}.log") for name in "ab"]
        cargo_progress.run(builds, at_once)
        first, second = (int((tmp_path / name).read_text()) for name in "ab")
        assert (second - first < 5e8) == at_once


def test_without_a_terminal_a_line_is_printed_once_a_minute(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    line = cargo_progress.Line()
    for now[0] in range(0, 150):
        line.show(f"at {now[0]} s")
    assert capsys.readouterr().out == "at 60 s\nat 120 s\n"


def test_on_a_terminal_the_line_is_updated_in_place(monkeypatch):
    class Terminal(io.StringIO):
        isatty = lambda self: True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "30")
    line = cargo_progress.Line()
    line.show("[set-up] building the crate: 143 of 412 packages")
    line.show("[set-up] building")
    line.end()
    assert sys.stdout.getvalue() == "\r\033[K[set-up] building the crate: \r\033[K[set-up] building\r\033[K"


def test_the_time_left_is_estimated_in_words():
    assert cargo_progress.time_left(0.3, 5) == ""
    assert cargo_progress.time_left(0, 50) == ""
    assert cargo_progress.time_left(0.99, 200) == ", about a minute left"
    assert cargo_progress.time_left(0.5, 120) == ", about 6 min left"
    spent = [cargo_progress.time_spent(done / 100) for done in range(101)]
    assert spent == sorted(spent) and spent[-1] < 1


def test_the_estimate_leaves_out_packages_that_were_compiled_before(tmp_path):
    build = recorded(tmp_path)
    build.started, build.total, build.fresh, build.done = time.monotonic() - 120, 400, 360, 360
    assert cargo_progress.estimate([build]) == ""
    build.done = 380
    assert cargo_progress.estimate([build]) == ", about 6 min left"
    # Another build that has not said yet how many packages it has.
    assert cargo_progress.estimate([build, Build("the kernel", [], tmp_path / "log")]) == ""


# --- the cache


def test_compiled_packages_of_an_older_lock_file_are_removed(tmp_path):
    """With a real build: a crate is compiled with two settings, and then only the second's files remain."""
    package, target = tmp_path / "package", tmp_path / "target"
    (package / "src").mkdir(parents=True)
    (package / "src/lib.rs").write_text("pub fn one() -> usize { 1 }\n")
    (package / "build.rs").write_text("fn main() {}\n")
    (package / "Cargo.toml").write_text('[package]\nname = "small"\nversion = "0.1.0"\n[workspace]\n')
    build = Build("small", ["cargo", "build", "--offline", "--target-dir", target], tmp_path / "log", package)
    build.environment = {"CARGO_PROFILE_DEV_OPT_LEVEL": "1"}
    build.run()
    old = files(target)
    build.environment = {"CARGO_PROFILE_DEV_OPT_LEVEL": "2"}
    build.run()
    both = files(target)
    libraries = lambda names: {name for name in names if name.endswith(".rlib")}
    assert old < both and len(libraries(both)) == 2
    builds.drop_others(target, build.messages())
    new = files(target)
    assert new < both and len(libraries(new - old)) == 1 and not libraries(new & old)
    stamps = {name: os.stat(target / name).st_mtime_ns for name in new}
    build.run()
    assert build.code == 0 and "Compiling" not in build.log.read_text()
    assert stamps == {name: os.stat(target / name).st_mtime_ns for name in new}


def test_the_crate_remains_among_the_compiled_packages(tmp_path):
    """A kernel would compile it again without cargo's fingerprint of it."""
    package, target, cache = (tmp_path / name for name in ("package", "target", "cache"))
    (package / "src").mkdir(parents=True)
    (package / "src/lib.rs").write_text("pub fn one() -> usize { 1 }\n")
    (package / "Cargo.toml").write_text(
        '[package]\nname = "loss-landscape"\nversion = "0.1.0"\n[lib]\ncrate-type = ["dylib"]\n[workspace]\n'
    )
    build = Build("the crate", ["cargo", "build", "--offline", "--target-dir", target], tmp_path / "log", package)
    build.run()
    builds.drop_others(target, build.messages())
    builds.copy_crate(target, cache)
    for build.command[-1] in (target, cache):
        build.run()
        assert build.code == 0 and "Compiling" not in build.log.read_text()


def test_a_build_in_a_copy_does_not_change_the_original(tmp_path):
    """Kernels of all clones start with copies of one directory."""
    package, target, copy = (tmp_path / name for name in ("package", "target", "copy"))
    (package / "src").mkdir(parents=True)
    (package / "src/lib.rs").write_text("")
    (package / "build.rs").write_text("fn main() {}\n")
    (package / "Cargo.toml").write_text('[package]\nname = "one"\nversion = "0.1.0"\n[workspace]\n')
    build = Build("a package", ["cargo", "build", "--offline", "--target-dir", target], tmp_path / "log", package)
    build.run()
    content = {name: (target / name).read_bytes() for name in files(target)}
    builds.copy(target, copy)
    with (package / "Cargo.toml").open("a") as manifest:
        manifest.write("[features]\nadded = []\n")
    build.command[-1] = copy
    build.run()
    assert build.code == 0 and "Compiling" in build.log.read_text()
    assert content == {name: (target / name).read_bytes() for name in files(target)}


def files(target):
    """The files that hold a compiled package."""
    return {
        str(path.relative_to(target))
        for folder in builds.FOLDERS for path in (target / "debug" / folder).rglob("*") if path.is_file()
    }


def test_evaluators_that_no_clone_uses_are_removed(tmp_path):
    cache, clone = tmp_path / "cache", tmp_path / "clone"
    for name in ("used", "old", "new"):
        (cache / f"evaluator-host-{name}").mkdir(parents=True)
        if name != "new":
            os.utime(cache / f"evaluator-host-{name}", (0, 0))
    (cache / "evaluator-target").mkdir()
    os.utime(cache / "evaluator-target", (0, 0))
    specification = clone / ".venv/share/jupyter/kernels/loss-landscape/kernel.json"
    specification.parent.mkdir(parents=True)
    specification.write_text(json.dumps({"argv": ["python", "kernel.py", str(cache / "evaluator-host-used/evaluator")]}))
    (cache / "kernels/1").mkdir(parents=True)
    (cache / "kernels/1/checkout").write_text(str(clone))
    compile_kernel.prune(cache)
    assert {path.name for path in cache.glob("evaluator*")} == {"evaluator-host-used", "evaluator-host-new", "evaluator-target"}
