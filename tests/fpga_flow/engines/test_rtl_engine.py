"""The RTL engine on a design written by hand: integers, cycles, stalls, hangs, dead processes."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_design import BURST_CYCLES, OFFSET, SLOW_CYCLES, as_images, codes, sums, tiny_design

from divqat_brevitas.errors import InputError
from fpga_flow.engines import load_engine
from fpga_flow.engines.fifos import size_fifos
from fpga_flow.engines.isolated_layers import measure_layers
from fpga_flow.engines.rtl import RtlEngine
from fpga_flow.engines.simulation import SimulationError
from fpga_flow.engines.taps import observe
from fpga_flow.rtl import Design, restitch


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> Design:
    return tiny_design(tmp_path_factory.mktemp("rtl") / "design")


@pytest.fixture(scope="module")
def engine(design: Design) -> Iterator[RtlEngine]:
    with RtlEngine(design) as engine:
        yield engine


@pytest.mark.slow  # simulates generated hardware
@pytest.mark.parametrize("count", [0, 1, 2, 3, 301])
def test_any_number_of_images(engine: RtlEngine, count: int) -> None:
    pixels = codes(count)
    integers = engine.accumulators(as_images(pixels))["sum"]
    assert integers.dtype == np.int64
    assert np.array_equal(integers, sums(pixels))
    logits = engine.predict(as_images(pixels))
    assert logits.dtype == np.float32
    assert np.array_equal(logits, sums(pixels) * 0.5 + 1.0)
    assert engine.labels(as_images(pixels)).tolist() == [0] * count  # the sum is positive


def test_more_images_than_a_batch(engine: RtlEngine) -> None:
    pixels = codes(5000, seed=1)
    assert np.array_equal(engine.accumulators(as_images(pixels))["sum"], sums(pixels))


@pytest.mark.parametrize(("idle", "back_pressure"), [(0.9, 0), (0, 0.9), (0.4, 0.4), (0.95, 0.95)])
def test_stalls_change_no_integer_but_the_cycles(
    design: Design, engine: RtlEngine, idle: float, back_pressure: float
) -> None:
    pixels = codes(50, seed=2)
    images = as_images(pixels)
    cycles = []
    for seed in (1, 1, 2):
        with RtlEngine(design, idle=idle, back_pressure=back_pressure, seed=seed) as stalled:
            assert np.array_equal(stalled.accumulators(images)["sum"], sums(pixels))
            cycles.append(stalled.measure(images).cycles)
    assert cycles[0] == cycles[1]
    assert min(cycles) > engine.measure(images).cycles


def test_cycles(engine: RtlEngine) -> None:
    timing = engine.measure(as_images(codes(9)))
    # `burst` takes nothing for 22 cycles. Then 3 pixels wait (2 in the FIFO, 1 in `slow`); `slow`
    # takes the fourth one cycle after `burst` the first, the others 4 cycles apart: the eighth
    # 17 after, and it is 2 on its way. 20 cycles from the first to the eighth, both included.
    assert timing.interval_cycles == 42.0
    assert timing.latency_cycles == engine.measure(as_images(codes(2))).latency_cycles
    assert timing.cycles == timing.latency_cycles + 8 * 42
    assert timing.images == 9
    assert timing.images_per_s(clock_mhz=42) == 1e6


def test_a_batch_does_not_depend_on_the_one_before(engine: RtlEngine) -> None:
    images = as_images(codes(7))
    first = engine.measure(images)
    engine.predict(as_images(codes(30, seed=3)))
    assert replace(engine.measure(images), seconds=0) == replace(first, seconds=0)


def test_memory_files_are_read_from_the_design(design: Design, tmp_path: Path) -> None:
    other = tiny_design(tmp_path / "design")
    (other.folder / "slow_weights.dat").write_text(f"{OFFSET + 1:02x}\n")
    with RtlEngine(other.folder) as engine:
        answered = engine.accumulators(as_images(codes(4)))["sum"]
    assert np.array_equal(answered[:, 0], sums(codes(4))[:, 0] + 8)


def test_a_folder_is_loaded_as_an_engine(design: Design) -> None:
    engine = load_engine(design.folder, "rtl")
    assert engine.name == "rtl"
    assert np.array_equal(engine.predict(as_images(codes(3))), sums(codes(3)) * 0.5 + 1.0)


@pytest.mark.slow  # simulates generated hardware
def test_streams(design: Design) -> None:
    pixels = codes(3)
    streams = observe(design, as_images(pixels))
    assert list(streams) == ["input_fifo", "slow", "slow_fifo", "burst", "burst_fifo"]
    assert np.array_equal(streams["input_fifo"], pixels)
    assert np.array_equal(streams["slow_fifo"], 2 * pixels + OFFSET)
    assert np.array_equal(streams["burst_fifo"], sums(pixels))


@pytest.mark.slow  # simulates generated hardware
def test_a_hang_names_the_stream(tmp_path: Path) -> None:
    stuck = tiny_design(tmp_path / "design", stop=11)
    with RtlEngine(stuck, threads=1) as engine:
        assert len(engine.predict(as_images(codes(1)))) == 1
        message = r"slow \(MVAU\) offers no more\. It gave 11 of 16 beats, and took 11 of 16"
        with pytest.raises(SimulationError, match=message):
            engine.predict(as_images(codes(2)))
        assert len(engine.predict(as_images(codes(1)))) == 1
    with pytest.raises(SimulationError, match=r"slow \(MVAU\) offers no more"):
        observe(stuck, as_images(codes(2)))


def test_a_dead_process_gives_no_answer_and_another_is_started(design: Design) -> None:
    with RtlEngine(design, threads=1) as engine:
        engine.predict(as_images(codes(1)))
        os.kill(engine._started[0].pid, signal.SIGKILL)
        with pytest.raises(SimulationError, match=r"was killed \(signal 9\)"):
            engine.predict(as_images(codes(3)))
        assert np.array_equal(engine.accumulators(as_images(codes(3)))["sum"], sums(codes(3)))


def test_processes_end_with_the_engine(design: Design) -> None:
    engine = RtlEngine(design, threads=2)
    engine.predict(as_images(codes(20)))
    processes = list(engine._started)
    assert len(processes) in (1, 2)  # the first may have answered before the second is needed
    engine.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
    assert len(engine.predict(as_images(codes(2)))) == 2
    engine.close()


@pytest.mark.slow  # simulates generated hardware
def test_each_layer_by_itself(design: Design) -> None:
    assert measure_layers(design) == {"slow": SLOW_CYCLES, "burst": BURST_CYCLES}


@pytest.mark.slow  # simulates generated hardware
def test_fifos_are_sized_to_the_slowest_layer(design: Design, tmp_path: Path) -> None:
    sizing = size_fifos(design)
    assert sizing.unlimited_cycles == SLOW_CYCLES
    assert sizing.interval_cycles == SLOW_CYCLES
    assert sizing.depths == {"input_fifo": 2, "slow_fifo": 4, "burst_fifo": 2}
    assert sizing.bits == 2 * 8 + 4 * 10 + 2 * 16
    real = restitch(design, tmp_path / "sized", fifo_depths=sizing.depths)
    with RtlEngine(real) as engine:
        assert engine.measure(as_images(codes(6))).interval_cycles == SLOW_CYCLES
        assert np.array_equal(engine.accumulators(as_images(codes(9)))["sum"], sums(codes(9)))


@pytest.mark.slow  # simulates generated hardware
def test_the_model_with_limits_is_cycle_exact(design: Design, tmp_path: Path) -> None:
    sizing = size_fifos(design, slack=0.2, smallest=0)
    assert sizing.interval_cycles <= 1.2 * SLOW_CYCLES
    assert 0 in sizing.depths.values()
    real = restitch(design, tmp_path / "sized", fifo_depths=sizing.depths)
    with RtlEngine(real) as engine:
        assert engine.measure(as_images(codes(6))).interval_cycles == sizing.interval_cycles


def test_what_is_refused(design: Design, engine: RtlEngine, tmp_path: Path) -> None:
    for name in ("idle", "back_pressure"):
        with pytest.raises(InputError, match=f"{name} must be from 0 to 0.95, not 1.0"):
            RtlEngine(design, **{name: 1.0})
    with pytest.raises(InputError, match="threads must be at least 1"):
        RtlEngine(design, threads=0)
    with pytest.raises(InputError, match="holds no hardware design"):
        RtlEngine(tmp_path)
    with pytest.raises(InputError, match="at least 2 images"):
        engine.measure(as_images(codes(1)))
    with pytest.raises(InputError, match="images are float64"):
        engine.predict(np.zeros((1, 1, 2, 4)))
    with pytest.raises(InputError, match="style 'finn'"):
        size_fifos(replace(design, style="finn"))
    with pytest.raises(InputError, match="images >= 4"):
        size_fifos(design, images=3)
