#!/usr/bin/env bash
# Checks the Dockerfile, .devcontainer and the workflow without Docker and without their services: does what the Dockerfile
# does as its user, in a clone of the last commit, with an empty home directory and environment, and asks JupyterLab for
# its kernels. The image's packages are this machine's. Takes as long as a first set-up.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\033[1m[ready-made]\033[0m %s\n' "$*"; }
[ -x .venv/bin/python ] || environment/setup.sh

say "the files can be read …"
.venv/bin/python - <<'PYTHON'
import json, os, yaml
container = json.load(open(".devcontainer/devcontainer.json"))
assert os.path.samefile(os.path.join(".devcontainer", container["build"]["dockerfile"]), "Dockerfile")
assert os.access(container["postCreateCommand"], os.X_OK)
job = yaml.safe_load(open(".github/workflows/ci.yml"))["jobs"]["check"]
for command in job["strategy"]["matrix"]["command"]:
    assert os.access(command, os.X_OK) and command in open("README.md").read(), command
PYTHON

HOME_PART=$(mktemp -d "${TMPDIR:-/tmp}/loss-landscape.XXXXXX")
trap 'kill $(cat "$HOME_PART/server" 2>/dev/null) 2>/dev/null || true; rm -rf "$HOME_PART"' EXIT
git clone --quiet . "$HOME_PART/loss-landscape"

# The image has Rust outside of the home directory.
in_image() {
    (cd "$HOME_PART/loss-landscape" && exec env -i HOME="$HOME_PART" \
        PATH="$(dirname "$(command -v cargo)"):/usr/local/bin:/usr/bin:/bin" \
        RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" bash -euc "$1")
}

# Continued lines are joined. What comes before USER runs as root in the image.
sed -e ':join' -e '/\\$/{N;s/\\\n//;b join' -e '}' Dockerfile | sed -n '/^USER/,$s/^RUN //p' > "$HOME_PART/steps"
[ -s "$HOME_PART/steps" ]
while IFS= read -r step; do
    say "$step"
    in_image "$step" </dev/null
done < "$HOME_PART/steps"

COMMAND=$(.venv/bin/python -c 'import json, re, shlex; print(shlex.join(json.loads(re.search(r"^CMD (.*)", open("Dockerfile").read(), re.M)[1])))')
PORT=18888
say "$COMMAND"
[ "$(id -u)" != 0 ] || COMMAND+=" --allow-root"
in_image "echo \$\$ > '$HOME_PART/server'; PATH=\"\$PWD/.venv/bin:\$PATH\" exec $COMMAND --port=$PORT --IdentityProvider.token=check" > "$HOME_PART/lab.log" 2>&1 &
.venv/bin/python - "http://127.0.0.1:$PORT" <<'PYTHON' || { cat "$HOME_PART/lab.log"; exit 1; }
import json, sys, time, urllib.request
def ask(path):
    request = urllib.request.Request(sys.argv[1] + path, headers={"Authorization": "token check"})
    return json.load(urllib.request.urlopen(request, timeout=10))
for attempt in range(60):
    try:
        kernels = ask("/api/kernelspecs")["kernelspecs"]
        break
    except OSError:
        time.sleep(1)
assert "loss-landscape" in kernels, kernels
assert any(item["name"].startswith("01_") for item in ask("/api/contents")["content"])
PYTHON
say "a notebook of the image …"
in_image '.venv/bin/python - <<PYTHON
import sys; sys.path.insert(0, "environment")
import compile_crate
compile_crate.execute("two_moons(100, 0.1, 0, &Device::Cpu)?;")
PYTHON'
say "all passed."
