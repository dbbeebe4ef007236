import pytest

# The least that is a run: one epoch of a float network on 8x8 digits.
TINY = """
preset = "smoke"
skip = ["export", "compile", "simulate", "attack", "report"]
[base]
train.variants = ["float"]
[grid]
run.seeds = [{seeds}]
"""


@pytest.fixture
def tiny(tmp_path):
    """A sweep file of so many tasks that differ in their seed."""

    def write(tasks):
        file = tmp_path / "sweep.toml"
        file.write_text(TINY.format(seeds=", ".join(map(str, range(tasks)))))
        return file

    return write
