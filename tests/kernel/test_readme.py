"""The README's Rust cells run unchanged."""

import re

from conftest import PROJECT


def test_the_cells(kernel, tmp_path):
    blocks = re.findall(r"```rust\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    quick_start, own_model = blocks
    image = tmp_path / "my_landscape.png"
    shown = kernel.run(quick_start.replace("my_landscape.png", str(image)))
    assert "condition number" in shown["text/plain"], shown
    assert image.read_bytes().startswith(b"\x89PNG")
    shown = kernel.run(own_model)
    assert not {"error", "stderr"} & shown.keys(), shown
    assert shown["application/vnd.plotly.v1+json"]["layout"]["title"]["text"].startswith("The 12 largest of 25450")
