"""The README's Rust cells run unchanged."""

import re

from conftest import PROJECT


def test_own_model(kernel):
    blocks = re.findall(r"```rust\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    shown = kernel.run(blocks[0])
    assert not {"error", "stderr"} & shown.keys(), shown
    assert shown["application/vnd.plotly.v1+json"]["layout"]["title"]["text"].startswith("The 12 largest of 25450")
