from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_chip import GOOD, Damaging, FakeChip, filled, serial_port
from hypothesis import given, settings
from hypothesis import strategies as st
from small_core import BEATS, BYTES, expected, small_design

from divqat_brevitas.errors import CheckFailedError, InputError, ToolMissingError
from fpga_flow.host.driver import ChipDriver, ChipEngine, FtdiTransport, SerialTransport
from fpga_flow.host.power import read_power, write_template
from fpga_flow.host.protocol import Identity
from fpga_flow.rtl.design import Bytes, Design


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> Design:
    return small_design(tmp_path_factory.mktemp("host") / "design")


def identity(design: Design) -> Identity:
    digest = bytes.fromhex(design.digest)[:8]
    return Identity(1, "uart", digest, BEATS, BYTES, 5, 3, 5, 4, 50.0)


def answer(design: Design, image: bytes) -> bytes:
    beats = np.frombuffer(image, np.uint8).reshape(1, BEATS, BYTES)
    return design.output.pack(expected(beats)[..., None]).tobytes()


def chip(design: Design, hit: Damaging | None = None) -> FakeChip:
    return FakeChip(identity(design), lambda image: answer(design, image), hit or bytes)


def images(count: int, seed: int = 0) -> Bytes:
    shape = (count, BEATS, BYTES)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def test_answers_are_those_of_their_images(design: Design) -> None:
    driver = ChipDriver(chip(design), design)
    beats = images(300)  # more than there are sequence numbers
    assert np.array_equal(design.accumulators(driver.run(beats)), expected(beats))
    assert driver.run(beats[:0]).shape == (0, 5, 3)
    assert driver.status().images == 300
    assert driver.recoveries == 1  # the first, which finds the chip
    driver.reset()
    assert driver.status().images == 0


def test_the_engine_gives_accumulators_and_logits(design: Design) -> None:
    engine = ChipEngine(design, ChipDriver(chip(design), design))
    pixels = np.linspace(0, 1, 36, dtype=np.float32).reshape(3, 12)
    found = engine.accumulators(pixels)["sum"]
    assert np.array_equal(found, expected(design.beats(pixels)))
    assert np.array_equal(engine.predict(pixels), found.astype(np.float32))
    with pytest.raises(InputError):
        engine.predict(pixels[:, :5])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0005, 0.005, 0.02, 0.2]))
def test_a_damaged_line_never_gives_a_wrong_answer(design: Design, seed: int, rate: float) -> None:
    hit, beats = Damaging(rate, seed), images(40, seed)
    try:
        driver = ChipDriver(chip(design, hit), design)
        assert np.array_equal(design.accumulators(driver.run(beats)), expected(beats))
    except CheckFailedError:
        assert hit.hits > 0


def test_rare_damage_is_repaired(design: Design) -> None:
    hit, beats = Damaging(0.001, seed=1), images(500)
    driver = ChipDriver(chip(design, hit), design)
    assert np.array_equal(design.accumulators(driver.run(beats)), expected(beats))
    assert hit.hits > 10
    assert driver.recoveries > 1


def test_a_link_found_in_the_midst_of_a_frame(design: Design) -> None:
    link = chip(design)
    link.write(b"\xa5\x01\x07" + bytes(5))
    link.out += b"\x5a\x81\x03left from before"
    driver = ChipDriver(link, design)
    assert np.array_equal(design.accumulators(driver.run(images(3))), expected(images(3)))


def test_another_design_on_the_chip_is_refused(design: Design, tmp_path: Path) -> None:
    other = small_design(tmp_path / "other", pause=3)
    with pytest.raises(InputError, match="holds design"):
        ChipDriver(chip(design), other)


def test_another_version_of_the_protocol_is_refused(design: Design) -> None:
    link = chip(design)
    link.identity = replace(link.identity, version=2)
    with pytest.raises(InputError, match="version 2"):
        ChipDriver(link, design)


def test_a_dead_line_is_told(design: Design) -> None:
    link = chip(design)
    link.hit = lambda data: b""
    with pytest.raises(CheckFailedError, match="not even to a reset"):
        ChipDriver(link, design)


def test_a_line_that_dies_under_way_is_told(design: Design) -> None:
    link = chip(design)
    driver = ChipDriver(link, design)
    link.answer = lambda image: b"\0" * 3  # too short: the frame never ends well
    with pytest.raises(CheckFailedError, match="after 0 images"):
        driver.run(images(2))


def test_images_of_another_shape_are_refused(design: Design) -> None:
    driver = ChipDriver(chip(design), design)
    with pytest.raises(InputError, match="12 bytes"):
        driver.run(np.zeros((2, 3, 2), np.uint8))


def test_closing_the_driver_closes_the_link(design: Design) -> None:
    link = chip(design)
    ChipDriver(link, design).close()
    assert link.closed


@pytest.mark.parametrize(
    ("module", "make", "package"),
    [
        ("serial", lambda: SerialTransport("/dev/none"), "pyserial"),
        ("pyftdi.ftdi", FtdiTransport, "pyftdi"),
    ],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, make: object, package: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ToolMissingError, match=f"pip install {package}"):
        make()  # type: ignore[operator]


def test_a_serial_port(design: Design) -> None:
    pytest.importorskip("serial")
    with serial_port(chip(design)) as name:
        transport = SerialTransport(name, timeout=5.0)
        driver = ChipDriver(transport, design)
        assert np.array_equal(design.accumulators(driver.run(images(50))), expected(images(50)))
        transport.close()


def test_a_serial_port_that_goes_away_is_told(design: Design) -> None:
    pytest.importorskip("serial")
    link = chip(design)
    with serial_port(link) as name:
        transport = SerialTransport(name, timeout=5.0)
        driver = ChipDriver(transport, design)

        def unplugged(image: bytes) -> bytes:
            raise OSError("the board is gone")

        link.answer = unplugged
        with pytest.raises(CheckFailedError, match="link to the board was lost"):
            driver.run(images(3))
        transport.close()


def test_a_serial_port_that_is_not_there_is_told() -> None:
    pytest.importorskip("serial")
    with pytest.raises(InputError, match="/dev/nowhere"):
        SerialTransport("/dev/nowhere")


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
