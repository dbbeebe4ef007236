from pathlib import Path

import pytest
from fake_chip import GOOD, filled

from divqat_brevitas.errors import InputError
from fpga_flow.host.power import read_power, write_template


def test_a_filled_template_is_read(tmp_path: Path) -> None:
    reading = read_power(filled(tmp_path / "meter.toml"))
    assert (reading.meter, reading.idle_w, reading.load_w) == ("FNB58", 0.75, 1.25)
    assert reading.joules_per_image(500.0) == 0.0025
    assert reading.record()["date"] == "2026-11-30"


@pytest.mark.parametrize("name", GOOD)
def test_an_empty_line_is_named(tmp_path: Path, name: str) -> None:
    empty = '""' if GOOD[name].startswith('"') else "0"
    with pytest.raises(InputError, match=f"meter.toml: {name}: "):
        read_power(filled(tmp_path / "meter.toml", **{name: empty}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"load_w": "1250"}, "less than or equal to 240"),  # milliwatts
        ({"load_w": "nan"}, "load_w"),
        ({"load_w": '"1.25"'}, "load_w"),
        ({"load_w": "0.7"}, "exchanged"),
        ({"bitstream_sha256": '"abc"'}, "bitstream_sha256"),
        ({"date": '"30.11.2026"'}, "date"),
        ({"load_w": "1.25\nvolts = 5"}, "volts: unexpected"),
        ({"meter": ""}, "not valid TOML"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_power(filled(tmp_path / "meter.toml", **changes))


def test_equal_power_within_the_last_digit_is_no_exchange(tmp_path: Path) -> None:
    reading = read_power(filled(tmp_path / "meter.toml", load_w="0.7495"))
    assert reading.load_w < reading.idle_w


def test_no_reading_is_overwritten(tmp_path: Path) -> None:
    file = filled(tmp_path / "meter.toml")
    before = file.read_text()
    with pytest.raises(InputError, match="Name another file"):
        write_template(file, "b" * 64)
    assert file.read_text() == before
