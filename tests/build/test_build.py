"""Builds: installed programs run from any directory, and the library has no shared object."""

import json
import os
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
TARGET = PROJECT / "target"


def cargo(*arguments, cwd=PROJECT):
    """Runs cargo in this project's target directory and returns its JSON messages, if it prints any."""
    command = ["cargo", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, "CARGO_TARGET_DIR": str(TARGET)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def version(program):
    """Runs a program in an empty environment and in the root directory, and returns its version."""
    done = subprocess.run([program, "--version"], cwd="/", env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    cargo("install", "--path", PROJECT, "--locked", "--offline", "--debug", "--root", root, "--no-track")
    return root / "bin/landscape"


def test_an_installed_program_runs_from_anywhere(installed):
    assert "landscape" in version(installed)


def test_an_installed_program_needs_no_rust_library(installed):
    libraries = subprocess.check_output(["ldd", installed], text=True)
    assert "libc.so" in libraries
    assert "libloss_landscape" not in libraries and "libstd" not in libraries


def test_another_build_does_not_break_the_program(installed):
    """A bench has other dependencies, so cargo compiles the library again."""
    built = cargo("build", "--locked", "--offline", "--bin", "landscape", "--message-format", "json")
    [program] = [message["executable"] for message in built if message.get("executable")]
    cargo("build", "--locked", "--offline", "--bench", "own")
    assert "landscape" in version(program)


def test_a_downstream_crate_compiles_only_the_numerical_code(tmp_path):
    manifest = f"""[package]
name = "downstream"
version = "0.1.0"
edition = "2024"

[workspace]

[dependencies]
loss-landscape = {{ path = "{PROJECT}", default-features = false }}
"""
    (tmp_path / "src").mkdir()
    (tmp_path / "Cargo.toml").write_text(manifest)
    (tmp_path / "Cargo.lock").write_text((PROJECT / "Cargo.lock").read_text())
    (tmp_path / "src/lib.rs").write_text("pub use loss_landscape::prelude::Objective;")
    config = PROJECT / ".cargo/config.toml"
    messages = cargo("check", "--offline", "--message-format", "json", "--config", config, cwd=tmp_path)
    targets = {message["target"]["name"]: message["target"] for message in messages if message["reason"] == "compiler-artifact"}
    assert targets["loss_landscape"]["crate_types"] == ["lib"]
    assert "candle_core" in targets
    assert not {"plotly", "polars", "clap", "toml", "landscape"} & targets.keys()
