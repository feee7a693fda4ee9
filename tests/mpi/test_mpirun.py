"""The command line under mpirun, on 1, 2 and 3 ranks of one machine. environment/mpi.sh --tests builds it."""

import fcntl
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
LANDSCAPE = next((PROJECT / "target").glob("*/debug/landscape"))
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none"]
# OpenMPI refuses to run as root without both variables.
ENVIRONMENT = os.environ | {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "RAYON_NUM_THREADS": "1",
}
NETWORK = ["--layers", "784,12,10"]
SETTINGS = [*NETWORK, "--samples", "300"]


def command(ranks, *arguments):
    mpirun = [*MPIRUN, "-n", str(ranks)] if ranks else []
    return [*mpirun, str(LANDSCAPE), *map(str, arguments)]


def run(ranks, *arguments):
    """Runs a command on `ranks` ranks, or without mpirun if `ranks` is 0."""
    return subprocess.run(command(ranks, *arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def run_json(ranks, *arguments):
    """Runs a command that must succeed and returns its JSON output."""
    done = run(ranks, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files(directory):
    """The contents of all files except those that contain times."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "surface.json"}


@pytest.mark.parametrize("divide", ["samples", "vectors"])
def test_decompositions_agree_with_one_process(divide):
    commands = {
        "spectrum": (["--top", 4, "--block", 2, "--tolerance", 1e-8], lambda report: report["eigenvalues"]),
        "trace": (["--max-products", 30], lambda report: [report["trace"]["value"]]),
        "density": (["--probes", 4, "--steps", 12], lambda report: [report["trace"]["value"]]),
    }
    for name, (settings, numbers) in commands.items():
        settings = [name, *SETTINGS, "--dtype", "f64", *settings]
        alone = numbers(run_json(0, *settings))
        for ranks in 1, 2, 3:
            together = run_json(ranks, *settings, "--divide", divide)
            assert together["samples"] == 300
            assert numbers(together) == pytest.approx(alone, rel=1e-6)
            assert numbers(run_json(ranks, *settings, "--divide", divide)) == numbers(together)


def test_sharpness_and_times():
    sharpness = ["sharpness", *SETTINGS, "--radius", 0.05]
    alone, together = run_json(0, *sharpness), run_json(2, *sharpness)
    for key, value in alone.items():
        if isinstance(value, float) and "second" not in key:
            assert together[key] == pytest.approx(value, rel=1e-4), key
    timed = run_json(2, "hvp", *SETTINGS, "--runs", 3)
    assert timed["ranks"] == 2 and timed["sum_ms"] > 0


def test_a_surface_has_the_same_bytes(tmp_path):
    surface = ["surface", *SETTINGS, "--grid", 9, "--eigenvalues", "--out"]
    assert run(0, *surface, tmp_path / "alone").returncode == 0
    alone = files(tmp_path / "alone")
    assert "surface.csv" in alone and not any(name.startswith("unfinished") for name in alone)
    for ranks in 1, 2, 3:
        done = run(ranks, *surface, tmp_path / f"{ranks}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("loss at θ") == 1  # only one rank prints
        assert files(tmp_path / f"{ranks}") == alone
    for i in 1, 2, 3:
        done = run(0, *surface, tmp_path / "shards", "--shard", f"{i}/3")
        assert done.returncode == 0, done.stderr
        assert ("this shard is done" in done.stdout) == (i < 3)
    assert files(tmp_path / "shards") == alone


SWEEP = ["sweep", *SETTINGS, "--l2", "0:0.05:10", "--epochs", 3, "--top", 4, "--out"]


def test_a_sweep_has_the_same_bytes(tmp_path):
    assert run(0, *SWEEP, tmp_path / "alone").returncode == 0
    for ranks in 1, 2, 3:
        done = run(ranks, *SWEEP, tmp_path / f"{ranks}")
        assert done.returncode == 0, done.stderr
        assert "10 points, 10 of them new" in done.stdout
        assert files(tmp_path / f"{ranks}") == files(tmp_path / "alone")
    shards = [subprocess.Popen(command(0, *SWEEP, tmp_path / "shards", "--shard", f"{i}/3"), env=ENVIRONMENT)
              for i in (1, 2, 3)]
    assert [shard.wait(300) for shard in shards] == [0, 0, 0]
    assert run(0, *SWEEP, tmp_path / "shards", "--resume").returncode == 0
    assert files(tmp_path / "shards") == files(tmp_path / "alone")


def ranks_of(mpirun):
    """The processes started by an mpirun, in the order of their ranks."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == mpirun.pid:
                environment = (stat.parent / "environ").read_bytes().split(b"\0")
                found += [(int(line.split(b"=")[1]), pid) for line in environment
                          if line.startswith(b"OMPI_COMM_WORLD_RANK=")]
        except (OSError, ValueError):
            pass  # the process has ended
    return [pid for _, pid in sorted(found)]


def kill_one(ranks, victim, seconds, arguments):
    """Starts a command, waits and kills a rank. Returns whether the command was still running."""
    mpirun = subprocess.Popen(command(ranks, *arguments), env=ENVIRONMENT, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while len(pids := ranks_of(mpirun)) < ranks and time.monotonic() < deadline and mpirun.poll() is None:
        time.sleep(0.01)
    time.sleep(seconds)
    if mpirun.poll() is None and len(pids) == ranks:
        os.kill(pids[victim], signal.SIGKILL)
    _, error = mpirun.communicate(timeout=120)
    if mpirun.returncode:
        assert "signal 9" in error, error  # from mpirun, with the rank
    return mpirun.returncode != 0


def test_finished_work_survives_a_killed_rank(tmp_path):
    draw = random.Random(0)
    sweep = ["sweep", *SETTINGS, "--l2", "0:0.05:24", "--epochs", 8, "--top", 4, "--out"]
    surface = ["surface", *NETWORK, "--samples", 2000, "--grid", 15, "--eigenvalues", "--out"]
    for name, arguments, more in ("sweep", sweep, ["--resume"]), ("surface", surface, []):
        began = time.monotonic()
        assert run(2, *arguments, tmp_path / name).returncode == 0
        duration = time.monotonic() - began
        uninterrupted, kills = files(tmp_path / name), 0
        for attempt in range(6):
            ranks, directory = 2 + attempt % 2, tmp_path / f"{name}-{attempt}"
            delay = draw.uniform(0.1, 0.7) * duration
            kills += kill_one(ranks, attempt % ranks, delay, [*arguments, directory])
            before = {path: path.stat().st_mtime_ns for path in directory.glob("Model-*.csv")}
            again = run(3 - attempt % 3, *arguments, directory, *more if any(directory.glob("manifest.json")) else [])
            assert again.returncode == 0, again.stderr
            assert files(directory) == uninterrupted
            assert all(path.stat().st_mtime_ns == time for path, time in before.items())
        assert kills >= 3, f"{name}: only {kills} of 6 were killed in time"


def test_errors_are_printed_once(tmp_path):
    done = run(3, "spectrum", *NETWORK, "--samples", 2)
    assert done.returncode != 0
    assert done.stderr.count("2 samples cannot be divided among 3 ranks: start fewer") == 1, done.stderr
    with open(tmp_path / "unfinished.rank-1", "w") as taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        done = run(2, "surface", *SETTINGS, "--grid", 5, "--out", tmp_path)
    assert done.returncode != 0 and "is in use by another process" in done.stderr, done.stderr
    assert "(rank 1 of 2)" in done.stderr and "of 2 ranks failed" not in done.stderr
    done = run(2, "train", *NETWORK, "--save", tmp_path / "W.safetensors")
    assert done.returncode != 0 and "run it without mpirun" in done.stderr
    done = run(2, *SWEEP, tmp_path / "study", "--shard", "1/2")
    assert done.returncode != 0 and "cannot be combined with mpirun" in done.stderr
    assert "invalid shard" in run(0, *SWEEP, tmp_path / "study", "--shard", "3/2").stderr
