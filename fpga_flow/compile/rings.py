"""Cycles of our own window generators, and of FINN's, where a matrix takes their windows.

Ours (``window_serial``, ``window_parallel``) take an image while the one before still leaves, so
that an image takes the longer of its inputs and its windows, and sometimes a little more: a row
of windows needs all of its rows, and the rows above an image's first windows make the matrix wait
once the FIFO between them is empty.
"""

import functools

from fpga_flow.compile.shapes import Folding, LayerShape
from fpga_flow.compile.window import Busy, output_size, window_cycles

_IMAGES = 4  # until an image takes as long as the one before


def has_own_module(shape: LayerShape, folding: Folding) -> bool:
    """Whether the portable style has a window generator of its own; else FINN's is taken."""
    fold = shape.channels // folding.simd
    if shape.dilation != (1, 1) or (shape.depthwise and fold > 1):
        return False
    return fold == 1 if folding.parallel_window else True


def portable_window_cycles(
    shape: LayerShape, folding: Folding, busy: Busy = (1, 0), fifo: int = 0
) -> int:
    """Cycles from one image's end to the next one's, in the portable style.

    Args:
        shape: a ``ConvolutionInputGenerator``.
        folding: ``simd`` and ``parallel_window``.
        busy: what follows takes ``busy[0]`` beats, then none for ``busy[1]`` cycles.
        fifo: beats of the FIFO in between.

    Example:
        >>> shape = LayerShape(name="w", kind="ConvolutionInputGenerator", height=28, width=28,
        ...     vectors=576, kernel=(5, 5))
        >>> portable_window_cycles(shape, Folding(simd=1, parallel_window=True))
        784
    """
    if not has_own_module(shape, folding):
        return window_cycles(shape, folding, busy)
    fold = shape.channels // folding.simd
    numbers = (shape.height, shape.width, *output_size(shape), *shape.kernel, *shape.stride)
    if folding.parallel_window:
        return _parallel(*numbers, sum(busy) if busy[1] else 1, fifo)
    beats = shape.taps * fold
    vector = beats * (busy[0] + busy[1]) // busy[0] if busy[1] else beats
    return _serial(*numbers, fold, vector, fifo)


def ring_rows(kernel: int, stride: int, line: int) -> int:
    """Rows that ``window_serial`` keeps.

    Args:
        kernel: rows of a window.
        stride: rows from one window to the next.
        line: beats of a row.
    """
    enough, double = (kernel + stride - 1).bit_length(), (2 * kernel - 1).bit_length()
    column = max(1, (line - 1).bit_length())
    # 512 words: a block RAM's at its widest.
    return 1 << (double if double > enough and double + column <= 9 else enough)


@functools.lru_cache(maxsize=8192)
def _serial(
    h: int, w: int, oh: int, ow: int, kh: int, kw: int, sh: int, sw: int,
    fold: int, vector: int, fifo: int,
) -> int:  # fmt: skip
    """A ring of rows in memory, addressed.

    ``vector`` is the cycles that what follows needs a window.
    """
    line, beats = w * fold, kh * kw * fold
    ring = ring_rows(kh, sh, line)
    rest = h - (oh - 1) * sh  # rows given up with an image's last windows
    ahead = 1 + fifo // beats  # windows that may leave before they are taken
    given: list[int] = []  # when each row is given up
    arrived = [0]  # when each row is complete
    taken = [0] * ahead
    left, ends = 0, []
    for image in range(_IMAGES):
        for row in range(oh):
            needed = image * h + row * sh + kh
            while len(arrived) <= needed:
                number = len(arrived) - 1
                free = given[number - ring] if number >= ring else 0
                arrived.append(max(arrived[-1], free) + line)
            left = max(left, arrived[needed])
            for _ in range(ow):
                left = max(left + beats, taken[-ahead])
                taken.append(max(taken[-1] + vector, left))
            given += [left] * (rest if row == oh - 1 else sh)
        ends.append(taken[-1])
    return ends[-1] - ends[-2]


@functools.lru_cache(maxsize=8192)
def _parallel(
    h: int, w: int, oh: int, ow: int, kh: int, kw: int, sh: int, sw: int,
    vector: int, fifo: int,
) -> int:  # fmt: skip
    """Shift registers below a memory of rows: a pixel in, a window out."""
    pixels = [(y * sh + kh - 1) * w + x * sw + kw - 1 for y in range(oh) for x in range(ow)]
    ahead = 1 + fifo
    taken = [0] * ahead
    time, before, ends = 0, -1, []
    for image in range(_IMAGES):
        for pixel in pixels:
            now = image * h * w + pixel
            time = max(time, taken[-ahead]) + now - before
            before = now
            taken.append(max(taken[-1] + vector, time))
        ends.append(taken[-1])
    return ends[-1] - ends[-2]
