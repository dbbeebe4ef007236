"""Cycles of sliding-window generators, by following what their controllers decide.

FINN's generator keeps some rows in a buffer. In one cycle it can take an input (if the oldest
buffered one is not needed any more) and fetch an output (if its input has arrived). It finishes an
image before it starts the next one. Row after row soon behaves alike, so only a few rows are
followed cycle by cycle.

Ours (``window_serial``, ``window_parallel``) take an image while the one before still leaves, so
that an image takes the longer of its inputs and its windows, and sometimes a little more: a row
of windows needs all of its rows, and the rows above an image's first windows make the matrix wait
once the FIFO between them is empty.
"""

import functools
import itertools

from fpga_flow.folding.shapes import Folding, LayerShape

Busy = tuple[int, int]


def window_cycles(shape: LayerShape, folding: Folding, busy: Busy = (1, 0)) -> int:
    """Cycles from one image's end to the next one's, inputs always there.

    Args:
        shape: a ``ConvolutionInputGenerator``.
        folding: ``simd`` and ``parallel_window``.
        busy: what follows takes ``busy[0]`` beats, then none for ``busy[1]`` cycles.

    Example:
        >>> shape = LayerShape(name="w", kind="ConvolutionInputGenerator", height=28, width=28,
        ...     vectors=576, kernel=(5, 5))
        >>> window_cycles(shape, Folding(simd=1))
        14494
    """
    fold = shape.channels // folding.simd
    size = output_size(shape)
    numbers = (
        *(shape.height, shape.width, fold, *size),
        *(*shape.kernel, *shape.stride, *shape.dilation),
    )
    accepted, idle = busy if busy[1] else (1, 0)
    taken = wait = cycles = 0
    for _ in range(3):  # what an image leaves behind delays the next one
        if folding.parallel_window or shape.taps == 1:
            cycles, taken, wait = _parallel(*numbers, accepted, idle, taken, wait)
        else:
            depthwise = shape.depthwise and fold > 1
            cycles, taken, wait = _addressed(*numbers, depthwise, accepted, idle, taken, wait)
    return cycles


def window_possible(shape: LayerShape, folding: Folding) -> bool:
    """Whether FINN generates it.

    An addressed buffer must hold what a stride jumps over, and there must be something to count.
    """
    (kh, kw), (sh, sw), (dh, dw) = shape.kernel, shape.stride, shape.dilation
    if shape.vectors == 1 and shape.taps == 2 and folding.simd == shape.channels:
        return False
    if folding.parallel_window or shape.taps == 1:
        return True
    fold, w = shape.channels // folding.simd, shape.width
    span = ((kh - 1) * dh * w + (kw - 1) * dw + 1) * fold
    extra = max(0, sw - 1 - kh * kw) + max(0, (sh - 1) * w - kh * kw)
    width = (kw - 1) * dw + 1
    skipped = w % (width + (output_size(shape)[1] - 1) * sw)
    along = -span + sw * fold + 1
    down = -span + (skipped + width + (sh - 1) * w) * fold + 1
    return max(abs(along), abs(down)) <= span + extra * fold


def output_size(shape: LayerShape) -> tuple[int, int]:
    """(rows, columns) of windows."""
    rows, columns = (
        (size - (k - 1) * dilation - 1) // stride + 1
        for size, k, stride, dilation in zip(
            (shape.height, shape.width), shape.kernel, shape.stride, shape.dilation, strict=True
        )
    )
    return rows, columns


@functools.lru_cache(maxsize=4096)
def _addressed(
    h: int, w: int, fold: int, oh: int, ow: int, kh: int, kw: int, sh: int, sw: int,
    dh: int, dw: int, depthwise: bool, accepted: int, idle: int, taken: int, wait: int,
) -> tuple[int, int, int]:  # fmt: skip
    """A buffer that is addressed: an element of a window a beat."""
    span = ((kh - 1) * dh * w + (kw - 1) * dw + 1) * fold
    extra = max(0, sw - 1 - kh * kw) + max(0, (sh - 1) * w - kh * kw)
    depth = span + extra * fold
    step = sh * w * fold  # inputs from one row of windows to the next
    taps = [(y * dh * w + x * dw) * fold for y in range(kh) for x in range(kw)]
    wanted: list[int] = []  # input fetched, relative to the row's first
    freed: list[int] = []  # inputs not needed any more once it is fetched
    for x in range(ow):
        start = x * sw * fold
        after = start + sw * fold if x < ow - 1 else step
        if depthwise:
            for channel in range(fold):
                wanted += [start + channel + tap for tap in taps]
                free = start + channel + 1 if channel < fold - 1 else after
                freed += [free] * len(taps)
        else:
            wanted += [start + tap + channel for tap in taps for channel in range(fold)]
            freed += [after] * (len(taps) * fold)
    fetches = len(wanted)
    last_start = (ow - 1) * sw * fold
    last = h * w * fold - 1
    newest, row, index, needed = -1, 0, 0, 0
    current = wanted[0]
    holding = fetching_done = wrote = False
    cycle = 0
    seen: tuple[int, ...] = ()
    seen_at = seen_newest = 0
    while True:
        cycle += 1
        ready = wait == 0
        wait -= wait > 0
        write = holding and ready
        fetch = current <= newest and not (holding and not ready) and not fetching_done
        oldest = newest - depth + 1
        read = newest < last and (fetching_done or (oldest < needed and oldest < current))
        ends = fetching_done and (
            (write and (newest == last or (read and newest == last - 1)))
            or (wrote and read and newest == last - 1)
        )
        if write:
            taken += 1
            if taken == accepted:
                taken, wait = 0, idle
            holding = fetch
            wrote = wrote or fetching_done
        newest += read
        if ends:
            return cycle, taken, wait
        if not fetch:
            continue
        holding = True
        needed = row * step + freed[index]
        if row == oh - 1 and freed[index] == step:  # the last window
            needed = row * step + last_start + span - 1
        index += 1
        if index < fetches:
            current = row * step + wanted[index]
            continue
        if row == oh - 1:
            fetching_done = True
            continue
        row, index = row + 1, 0
        current = row * step
        state = (newest - current, taken, wait)
        if state == seen and newest - seen_newest == step:
            # Every further row takes as long, while inputs last.
            skipped = max(0, min(oh - 2 - row, (last - newest) // step - 2))
            cycle += skipped * (cycle - seen_at)
            newest += skipped * step
            row += skipped
            current += skipped * step
            needed += skipped * step
        seen, seen_at, seen_newest = state, cycle, newest


@functools.lru_cache(maxsize=4096)
def _parallel(
    h: int, w: int, fold: int, oh: int, ow: int, kh: int, kw: int, sh: int, sw: int,
    dh: int, dw: int, accepted: int, idle: int, taken: int, wait: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Shift registers and line buffers: a whole window a beat."""
    first = ((kh - 1) * dh * w + (kw - 1) * dw) * fold
    last = h * w * fold - 1
    windows = [
        first + (y * sh * w + x * sw) * fold + channel
        for y, x, channel in itertools.product(range(oh), range(ow), range(fold))
    ]
    newest, index, cycle = -1, 0, 0
    while True:
        cycle += 1
        ready = wait == 0
        wait -= wait > 0
        done = index == len(windows)
        write = not done and windows[index] <= newest
        go = write and ready
        may_read = newest < last and (done or newest <= windows[index])
        read = may_read and go == write
        if go:
            taken += 1
            if taken == accepted:
                taken, wait = 0, idle
        newest += read
        index += go
        if index == len(windows) and newest == last:
            return cycle, taken, wait


_IMAGES = 4  # until an image takes as long as the one before


def has_own_module(shape: LayerShape, folding: Folding) -> bool:
    """Whether the portable style has a window generator of its own; else FINN's is taken."""
    fold = shape.channels // folding.simd
    if shape.dilation != (1, 1):
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
        return _portable_parallel(*numbers, sum(busy) if busy[1] else 1, fifo)
    beats = shape.taps * fold
    vector = beats * (busy[0] + busy[1]) // busy[0] if busy[1] else beats
    return _portable_serial(*numbers, fold, vector, fifo)


def ring_rows(kernel: int, stride: int) -> int:
    """Rows that ``window_serial`` keeps.

    Args:
        kernel: rows of a window.
        stride: rows from one window to the next.
    """
    return 1 << (kernel + max(kernel, stride) - 1).bit_length()


@functools.lru_cache(maxsize=8192)
def _portable_serial(
    h: int, w: int, oh: int, ow: int, kh: int, kw: int, sh: int, sw: int,
    fold: int, vector: int, fifo: int,
) -> int:  # fmt: skip
    """A ring of rows in memory, addressed.

    ``vector`` is the cycles that what follows needs a window.
    """
    line, beats = w * fold, kh * kw * fold
    ring = ring_rows(kh, sh)
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
def _portable_parallel(
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
