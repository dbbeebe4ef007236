"""One thread a process, for the tests and for all that they start.

Networks of this size gain nothing from a second thread, and on a busy machine the threads wait for
each other: some tests take a hundred times as long.
"""

import os

# Before anything imports torch or numpy, which read it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

# No deadline: a test never depends on how busy the machine is.
settings.register_profile("divqat", deadline=None)
settings.load_profile("divqat")
