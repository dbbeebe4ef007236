"""Our SystemVerilog modules, one by one, against what they are to compute, under halts."""

import itertools
import random
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from bench import Case, hexes, pack, run

from divqat_brevitas.extraction.detection.tripwire import POLICIES, Tripwire
from fpga_flow.host.tripwire import ChipTripwire
from fpga_flow.lowering.answer import AnswerUnit, ScoreRule

Integers = npt.NDArray[np.int64]
pytestmark = pytest.mark.slow  # each compiles a simulation
RATES = ((100, 100), (100, 40), (40, 100), (50, 60))


def _check(cases: list[Case], folder: Path) -> None:
    found = run(cases, folder)
    for case in cases:
        got = found[case.name]
        if case.endless:
            got = got[: len(case.expected)]
        assert got == list(case.expected), case.name


def _matrix_vector(
    name: str,
    rates: tuple[int, int],
    shape: tuple[int, int, int, int, int, int, bool, bool],
    version: int,
) -> Case:
    mw, mh, pe, simd, wbits, abits, signed, narrow = shape
    rng = np.random.default_rng(mw * 1000 + mh)
    vectors, limit = 6, 1 << (wbits - 1)
    weights = rng.integers(-limit + narrow, limit, (mh, mw))
    low, high = (-(1 << abits - 1), 1 << abits - 1) if signed else (0, 1 << abits)
    inputs = rng.integers(low, high, (vectors, mw))
    # The extremes: all products as large as they get, of either sign.
    inputs[0], inputs[1] = high - 1, low
    weights[0], weights[-1] = limit - 1, -limit + narrow
    stored, counts = weights, wbits == abits == 1 and signed
    if wbits == 1:  # -1 and +1
        stored = (weights < 0).astype(np.int64)
        weights = 2 * stored - 1
    if counts:
        inputs = (inputs < 0).astype(np.int64)
        results = ((2 * inputs - 1) @ weights.T + mw) // 2
    else:
        results = inputs @ weights.T
    accu = 1 + max(int(abs(results).max()).bit_length(), 2)
    folds = mw // simd
    words = [
        pack(stored[n * pe : (n + 1) * pe, s * simd : (s + 1) * simd].reshape(-1), wbits)
        for n in range(mh // pe)
        for s in range(folds)
    ]
    in_bits, w_bits, out_bits = (
        8 * -(-bits // 8) for bits in (simd * abits, pe * simd * wbits, pe * accu)
    )
    text = f"""
		wire [{w_bits - 1}:0] wdat; wire wvld, wrdy;
		memstream #(.DEPTH({len(words)}), .WIDTH({w_bits}), .INIT_FILE("{name}_w.hex")) weights (
			.clk, .rst, .config_ce(1'b0), .config_we(1'b0), .config_address('0), .config_d0('0),
			.config_rack(), .config_q0(), .sidx('0), .svld(1'b0), .srdy(),
			.ordy(wrdy), .ovld(wvld), .odat(wdat));
		mvu_vvu_axi #(
			.IS_MVU(1), .VERSION({version}), .MW({mw}), .MH({mh}), .PE({pe}), .SIMD({simd}),
			.ACTIVATION_WIDTH({abits}), .WEIGHT_WIDTH({wbits}), .ACCU_WIDTH({accu}),
			.NARROW_WEIGHTS({narrow:d}), .SIGNED_ACTIVATIONS({signed:d})
		) dut (
			.ap_clk(clk), .ap_clk2x(clk), .ap_rst_n(!rst),
			.s_axis_weights_tdata(wdat), .s_axis_weights_tvalid(wvld), .s_axis_weights_tready(wrdy),
			.s_axis_input_tdata(idat), .s_axis_input_tvalid(ivld), .s_axis_input_tready(irdy),
			.m_axis_output_tdata(odat), .m_axis_output_tvalid(ovld),
			.m_axis_output_tready(ordy));"""
    return Case(
        name=name,
        text=text,
        in_bits=in_bits,
        out_bits=out_bits,
        beats=[pack(beat, abits) for beat in inputs.reshape(-1, simd)],
        expected=[pack(beat, accu) for beat in results.reshape(-1, pe)],
        files={f"{name}_w.hex": hexes(words)},
        rates=rates,
    )


def test_matrix_vector_units_of_all_kinds_of_products(tmp_path: Path) -> None:
    shapes = [
        # mw, mh, pe, simd, weight bits, activation bits, signed, narrow
        (6, 4, 2, 3, 2, 2, False, True),  # table
        (6, 4, 1, 6, 2, 2, True, False),  # table, weights of -2
        (36, 4, 4, 2, 2, 2, False, True),  # table, results one at a time
        (25, 6, 1, 25, 2, 8, False, True),  # ternary, a beat a result
        (18, 3, 3, 3, 2, 3, True, True),  # ternary
        (17, 2, 1, 1, 2, 8, False, True),  # ternary, one lane, results one at a time
        (20, 4, 2, 5, 4, 4, False, False),  # packed
        (32, 4, 4, 2, 4, 4, True, True),  # packed
        (21, 2, 2, 7, 3, 2, False, False),  # packed
        (50, 2, 2, 25, 4, 8, False, False),  # split
        (12, 4, 2, 4, 4, 8, True, False),  # split
        (10, 3, 3, 5, 4, 4, False, True),  # plain: rows do not pair up
        (12, 2, 2, 6, 8, 3, False, True),  # split, fewer bits of activations
        (10, 2, 1, 10, 5, 2, True, False),  # plain, the same, signed
        (8, 4, 2, 2, 5, 1, False, True),  # packed, activations of one bit
        (9, 2, 2, 3, 8, 8, True, False),  # plain
        (1, 5, 1, 1, 8, 8, False, False),  # plain, one product
        (64, 1, 1, 4, 2, 2, False, True),  # one row: nothing to replay
        (27, 4, 2, 9, 1, 8, False, False),  # ternary, weights of one bit
        (6, 4, 1, 3, 1, 1, False, False),  # ternary, of bits 0 and 1
        (42, 4, 2, 14, 1, 1, True, False),  # equal bits
        (20, 3, 3, 1, 1, 1, True, False),  # equal bits, one lane
        (14, 2, 1, 2, 1, 1, True, False),  # equal bits, two lanes
    ]
    cases = [
        # In multipliers, where some are used at all, or (0) as bit planes, where lanes pair up.
        _matrix_vector(f"mvu{i}_{version}", RATES[(i + 2 * version) % 4], shape, version)
        for i, shape in enumerate(shapes)
        for version in (0, 1)
    ]
    _check(cases, tmp_path)


def _thresholds(
    name: str,
    rates: tuple[int, int],
    *,
    steps: int,
    channels: int,
    pe: int,
    wi: int,
    wt: int,
    deep: bool,
    signed: bool = True,
    bias: int = 0,
) -> Case:
    """``steps`` thresholds a channel, in FINN's memory files."""
    rng = np.random.default_rng(steps + channels)
    lowest = -(1 << min(wi, wt) - 1) if signed else 0
    highest = (1 << min(wi, wt) - signed) - 1
    table = np.sort(rng.integers(lowest, highest + 1, (channels, steps)), axis=1)
    low, high = (-(1 << wi - 1), 1 << wi - 1) if signed else (0, 1 << wi)
    values = rng.integers(low, high, (5, channels))
    values[0], values[1], values[2] = table[:, 0], table[:, -1] - (table[:, -1] > low), low
    results = (values[:, :, None] >= table).sum(axis=2) + bias
    search = steps.bit_length()
    out = search if bias >= 0 else 1 + (max(-bias, steps + bias + 1) - 1).bit_length()
    full = np.zeros((channels, (1 << search) - 1), np.int64)
    full[:, :steps] = table
    files = {}
    for lane in range(pe):
        for stage in range(search):
            first, gap = (1 << search - stage - 1) - 1, 1 << search - stage
            words = full[lane::pe, first::gap].reshape(-1)
            files[f"{name}_threshs_{lane}_{stage}.dat"] = hexes([pack([int(w)], wt) for w in words])
    in_bits, out_bits = (8 * -(-pe * bits // 8) for bits in (wi, out))
    text = f"""
		thresholding_axi #(
			.WI({wi}), .WT({wt}), .N({steps}), .C({channels}), .PE({pe}), .SIGNED({signed:d}),
			.BIAS({bias}), .DEEP_PIPELINE({deep:d}), .THRESHOLDS_PATH("./{name}_")
		) dut (
			.ap_clk(clk), .ap_rst_n(!rst),
			.s_axilite_AWVALID('0), .s_axilite_AWREADY(), .s_axilite_AWADDR('0),
			.s_axilite_WVALID('0), .s_axilite_WREADY(), .s_axilite_WDATA('0), .s_axilite_WSTRB('0),
			.s_axilite_BVALID(), .s_axilite_BREADY('0), .s_axilite_BRESP(),
			.s_axilite_ARVALID('0), .s_axilite_ARREADY(), .s_axilite_ARADDR('0),
			.s_axilite_RVALID(), .s_axilite_RREADY('0), .s_axilite_RDATA(), .s_axilite_RRESP(),
			.s_axis_set_tready(), .s_axis_set_tvalid('0), .s_axis_set_tdata('0),
			.s_axis_tdata(idat), .s_axis_tvalid(ivld), .s_axis_tready(irdy),
			.m_axis_tdata(odat), .m_axis_tvalid(ovld), .m_axis_tready(ordy));"""
    return Case(
        name=name,
        text=text,
        in_bits=in_bits,
        out_bits=out_bits,
        beats=[pack(beat, wi) for beat in values.reshape(-1, pe)],
        expected=[pack(beat, out) for beat in results.reshape(-1, pe)],
        files=files,
        rates=rates,
    )


def test_thresholds_in_a_pipeline_and_in_turn(tmp_path: Path) -> None:
    shapes = [
        {"steps": 3, "channels": 6, "pe": 1, "wi": 13, "wt": 11},
        {"steps": 3, "channels": 4, "pe": 4, "wi": 9, "wt": 9},
        {"steps": 15, "channels": 12, "pe": 2, "wi": 10, "wt": 12},
        {"steps": 1, "channels": 3, "pe": 3, "wi": 5, "wt": 5},
        {"steps": 2, "channels": 5, "pe": 1, "wi": 6, "wt": 6},  # fewer than bits can tell
        {"steps": 5, "channels": 4, "pe": 2, "wi": 8, "wt": 7, "bias": -4},
        {"steps": 7, "channels": 4, "pe": 4, "wi": 8, "wt": 8, "signed": False},
        {"steps": 255, "channels": 2, "pe": 1, "wi": 16, "wt": 16},
    ]
    cases = [
        _thresholds(f"thr{i}_{deep:d}", RATES[(i + deep) % 4], deep=deep, **shape)  # type: ignore[arg-type]
        for i, shape in enumerate(shapes)
        for deep in (False, True)
    ]
    _check(cases, tmp_path)


def _images(rows: int, cols: int, channels: int, bits: int, *, signed: bool = False) -> Integers:
    rng = np.random.default_rng(rows * 100 + cols)
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    return rng.integers(low, high, (4, rows, cols, channels))


def _image_case(
    name: str,
    rates: tuple[int, int],
    module: str,
    images: Integers,
    results: Integers,
    lanes: tuple[int, int],
    bits: int,
    parameters: str,
) -> Case:
    text = f"{module} #({parameters}) dut (.clk, .rst, .idat, .ivld, .irdy, .odat, .ovld, .ordy);"
    return Case(
        name=name,
        text=text,
        in_bits=lanes[0] * bits,
        out_bits=lanes[1] * bits,
        beats=[pack(beat, bits) for beat in images.reshape(-1, lanes[0])],
        expected=[pack(beat, bits) for beat in results.reshape(-1, lanes[1])],
        rates=rates,
    )


def _windows(images: Integers, kernel: tuple[int, int], stride: tuple[int, int]) -> Integers:
    """(N, out rows, out columns, kernel rows, kernel columns, channels)."""
    view = np.lib.stride_tricks.sliding_window_view(images, kernel, axis=(1, 2))
    return view[:, :: stride[0], :: stride[1]].transpose(0, 1, 2, 4, 5, 3)


WINDOWS = [
    # rows, cols, channels, lanes, kernel, stride
    (6, 6, 1, 1, (3, 3), (1, 1)),
    (7, 5, 4, 2, (3, 3), (1, 1)),
    (8, 8, 2, 2, (2, 2), (2, 2)),
    (9, 6, 3, 3, (3, 2), (2, 3)),  # rows and columns left over
    (5, 5, 2, 1, (5, 5), (1, 1)),
    (6, 7, 6, 2, (1, 1), (1, 1)),
    (11, 11, 1, 1, (4, 4), (3, 3)),
    (8, 7, 2, 2, (1, 1), (2, 2)),
    (7, 1, 2, 1, (3, 1), (2, 1)),  # one column, one row
    (9, 1, 1, 1, (2, 1), (1, 1)),
    (1, 7, 2, 1, (1, 3), (1, 2)),
]


def test_windows_beat_by_beat(tmp_path: Path) -> None:
    cases = []
    for i, (rows, cols, channels, lanes, kernel, stride) in enumerate(WINDOWS):
        images = _images(rows, cols, channels, 3)
        parameters = (
            f".WIDTH({3 * lanes}), .FOLD({channels // lanes}), .ROWS({rows}), .COLS({cols}), "
            f".K_ROWS({kernel[0]}), .K_COLS({kernel[1]}), "
            f".S_ROWS({stride[0]}), .S_COLS({stride[1]})"
        )
        windows = _windows(images, kernel, stride)
        # All channels of a pixel at a time, or all pixels of as many channels as there are lanes.
        split = windows.reshape(*windows.shape[:-1], channels // lanes, lanes)
        in_turns = np.moveaxis(split, -2, 3).reshape(len(images), -1)
        orders = {0: windows.reshape(len(images), -1), 1: in_turns}
        for rate in (i % 4, (i + 1) % 4):
            for depthwise, expected in orders.items():
                cases.append(
                    _image_case(
                        f"ser{i}_{rate}_{depthwise}",
                        RATES[rate],
                        "window_serial",
                        images,
                        expected,
                        (lanes, lanes),
                        3,
                        f"{parameters}, .DEPTHWISE({depthwise})",
                    )
                )
    _check(cases, tmp_path)


def test_whole_windows(tmp_path: Path) -> None:
    cases = []
    for i, (rows, cols, channels, _, kernel, stride) in enumerate(WINDOWS):
        images = _images(rows, cols, channels, 3)
        parameters = (
            f".WIDTH({3 * channels}), .ROWS({rows}), .COLS({cols}), .K_ROWS({kernel[0]}), "
            f".K_COLS({kernel[1]}), .S_ROWS({stride[0]}), .S_COLS({stride[1]})"
        )
        for rate in (i % 4, (i + 1) % 4):
            cases.append(
                _image_case(
                    f"par{i}_{rate}",
                    RATES[rate],
                    "window_parallel",
                    images,
                    _windows(images, kernel, stride),
                    (channels, kernel[0] * kernel[1] * channels),
                    3,
                    parameters,
                )
            )
    _check(cases, tmp_path)


def test_maxima_of_windows(tmp_path: Path) -> None:
    shapes = [
        # rows, cols, channels, lanes, kernel, signed
        (4, 4, 1, 1, (2, 2), False),
        (6, 6, 4, 2, (2, 2), True),
        (7, 8, 2, 2, (3, 3), False),  # rows and columns left over
        (6, 9, 6, 1, (2, 3), True),
        (5, 4, 3, 3, (1, 2), False),
        (6, 5, 2, 1, (3, 1), False),
        (4, 4, 2, 2, (4, 4), True),  # one window
    ]
    cases = []
    for i, (rows, cols, channels, lanes, kernel, signed) in enumerate(shapes):
        images = _images(rows, cols, channels, 4, signed=signed)
        parameters = (
            f".PE({lanes}), .WIDTH(4), .SIGNED({signed:d}), .FOLD({channels // lanes}), "
            f".ROWS({rows}), .COLS({cols}), .K_ROWS({kernel[0]}), .K_COLS({kernel[1]})"
        )
        results = _windows(images, kernel, kernel).max(axis=(3, 4))
        for rate in (i % 4, (i + 1) % 4):
            cases.append(
                _image_case(
                    f"max{i}_{rate}",
                    RATES[rate],
                    "pool_grid",
                    images,
                    results,
                    (lanes, lanes),
                    4,
                    parameters,
                )
            )
    _check(cases, tmp_path)


def test_streams_stored_widened_repeated_and_padded(tmp_path: Path) -> None:
    draw = random.Random(1)
    cases = []
    for i, depth in enumerate((2, 3, 16, 40, 300)):
        beats = [draw.randrange(32) for _ in range(700)]
        text = (
            f"fifo #(.DEPTH({depth}), .DATA_WIDTH(5)) dut (.clk, .rst, .idat, .ivld, .irdy, "
            ".odat, .ovld, .ordy, .count(), .maxcount());"
        )
        for rate in range(4):
            cases.append(Case(f"fifo{i}_{rate}", text, 5, 5, beats, beats, rates=RATES[rate]))
    for i, (taken, given) in enumerate(((2, 12), (32, 16), (3, 3), (24, 3), (1, 5))):
        parts = [draw.randrange(1 << min(taken, given)) for _ in range(240)]
        narrow = min(taken, given)
        wide, narrows = max(taken, given), len(parts)
        ratio = wide // narrow
        joined = [pack(parts[j : j + ratio], narrow) for j in range(0, narrows, ratio)]
        beats, expected = (parts, joined) if taken < given else (joined, parts)
        axi = [8 * -(-bits // 8) for bits in (taken, given)]
        text = (
            f"dwc_axi #(.IBITS({taken}), .OBITS({given})) dut (.ap_clk(clk), .ap_rst_n(!rst), "
            ".s_axis_tdata(idat), .s_axis_tvalid(ivld), .s_axis_tready(irdy), "
            ".m_axis_tdata(odat), .m_axis_tvalid(ovld), .m_axis_tready(ordy));"
        )
        for rate in range(2):
            cases.append(
                Case(
                    f"dwc{i}_{rate}",
                    text,
                    axi[0],
                    axi[1],
                    beats,
                    expected,
                    rates=RATES[(i + 2 * rate) % 4],
                )
            )
    for i, (length, times) in enumerate(((1, 1), (1, 4), (5, 1), (2, 2), (8, 3), (13, 5))):
        beats = [draw.randrange(64) for _ in range(4 * length)]
        expected = [
            int(beat == length - 1) << 7 | int(beat == length - 1 and turn == times - 1) << 6 | word
            for first in range(0, len(beats), length)
            for turn in range(times)
            for beat, word in enumerate(beats[first : first + length])
        ]
        text = (
            f"replay_buffer #(.LEN({length}), .REP({times}), .W(6)) dut (.clk, .rst, .idat, "
            ".ivld, .irdy, .odat(odat[5:0]), .olast(odat[7]), .ofin(odat[6]), .ovld, .ordy);"
        )
        for rate in range(2):
            cases.append(
                Case(f"rep{i}_{rate}", text, 6, 8, beats, expected, rates=RATES[(i + rate) % 4])
            )
    for i, (rows, cols, channels, lanes, pads) in enumerate(
        ((3, 4, 2, 1, (1, 1, 1, 1)), (4, 4, 1, 1, (2, 0, 0, 2)), (2, 5, 3, 3, (0, 1, 3, 0)))
    ):
        images = _images(rows, cols, channels, 4) | 1
        top, bottom, left, right = pads
        padded = np.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)))
        axi_bits = 8 * -(-lanes * 4 // 8)
        text = f"""fmpadding_axi #(
			.XCOUNTER_BITS(5), .YCOUNTER_BITS(5), .NUM_CHANNELS({channels}), .SIMD({lanes}),
			.ELEM_BITS(4), .INIT_XON({left}), .INIT_XOFF({left + cols}),
			.INIT_XEND({left + cols + right - 1}), .INIT_YON({top}), .INIT_YOFF({top + rows}),
			.INIT_YEND({top + rows + bottom - 1})
		) dut (
			.ap_clk(clk), .ap_rst_n(!rst),
			.s_axilite_AWVALID('0), .s_axilite_AWREADY(), .s_axilite_AWADDR('0),
			.s_axilite_WVALID('0), .s_axilite_WREADY(), .s_axilite_WDATA('0), .s_axilite_WSTRB('0),
			.s_axilite_BVALID(), .s_axilite_BREADY('0), .s_axilite_BRESP(),
			.s_axilite_ARVALID('0), .s_axilite_ARREADY(), .s_axilite_ARADDR('0),
			.s_axilite_RVALID(), .s_axilite_RREADY('0), .s_axilite_RDATA(), .s_axilite_RRESP(),
			.s_axis_tdata(idat), .s_axis_tvalid(ivld), .s_axis_tready(irdy),
			.m_axis_tdata(odat), .m_axis_tvalid(ovld), .m_axis_tready(ordy));"""
        for rate in range(2):
            cases.append(
                Case(
                    f"pad{i}_{rate}",
                    text,
                    axi_bits,
                    axi_bits,
                    [pack(beat, 4) for beat in images.reshape(-1, lanes)],
                    [pack(beat, 4) for beat in padded.reshape(-1, lanes)],
                    endless=True,  # zeros of the next image come before it does
                    rates=RATES[(i + rate) % 4],
                )
            )
    _check(cases, tmp_path)


def _tripwire(
    name: str, rates: tuple[int, int], answer: str, policy: str, numbers: dict[str, int]
) -> Case:
    rng = np.random.default_rng(len(name))
    classes, images = 5, 60
    unit = AnswerUnit(answer, ScoreRule((1,) * classes, (0,) * classes), tuple(range(-6, 1)))
    if answer.startswith("reject"):
        unit = AnswerUnit(answer, ScoreRule((1,) * 6, (0,) * 6), flagged=True)
    shape = (images, 1 if unit.label_only else classes)
    codes = rng.integers(0, classes, shape)
    labels = codes[:, 0] if unit.label_only else codes.argmax(axis=1)
    # Trust is earned first, and the alarm raised at the end.
    codes[:25], codes[-12:-2] = codes[labels != 2][0], codes[labels == 2][0]
    # What is rejected shows in the codes, or only in the bit above them.
    rejected = codes[:, 0] == 2
    if unit.flagged:
        codes = rng.integers(0, classes, shape)
    wire = Tripwire(**numbers, policy=policy)
    tripwire = ChipTripwire(wire, None if unit.flagged else 2, slow_cycles=9)
    shown, states = tripwire.answers(unit, codes, rejected=rejected)
    beats = codes | (rejected[:, None] << unit.code_bits if unit.flagged else 0)
    assert any(state.trusted and not state.alarm for state in states)
    assert states[-1].alarm
    values = {"BYTES": 1, "BEATS": codes.shape[1]} | tripwire.parameters(unit)
    parameters = ", ".join(f".{key}({value})" for key, value in values.items())
    text = f"""
		divqat_tripwire #({parameters}) dut (
			.clk, .rst_n(!rst), .core_rst_n(!rst), .alarm(),
			.s_axis_tdata(idat), .s_axis_tvalid(ivld), .s_axis_tready(irdy),
			.m_axis_tdata(odat), .m_axis_tvalid(ovld), .m_axis_tready(ordy));"""
    return Case(
        name=name,
        text=text,
        in_bits=8,
        out_bits=8,
        beats=beats.ravel().tolist(),
        expected=shown.ravel().tolist(),
        rates=rates,
    )


def test_tripwires(tmp_path: Path) -> None:
    """The counter and its masks are those of the definition, bit by bit."""
    all_numbers = (
        {"add": 6, "subtract": 1, "alarm_at": 40, "start": 18},
        {"add": 7, "subtract": 3, "alarm_at": 16, "start": 0},
        {"add": 31, "subtract": 2, "alarm_at": 30, "start": 29},
    )
    kinds = [("top1", policy) for policy in POLICIES if policy != "label-only"]
    kinds += [("posterior:3", policy) for policy in POLICIES] + [("reject:0", "lock")]
    cases = [
        _tripwire(f"wire{index}", RATES[index % len(RATES)], answer, policy, numbers)
        for index, ((answer, policy), numbers) in enumerate(itertools.product(kinds, all_numbers))
    ]
    module = files("fpga_flow.host").joinpath("sv", "divqat_tripwire.sv")
    found = run(cases, tmp_path, more=[Path(str(module))])
    for case in cases:
        assert found[case.name] == list(case.expected), case.name
