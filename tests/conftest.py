"""One thread a process, for the tests and for all that they start.

Networks of this size gain nothing from a second thread, and on a busy machine the threads wait for
each other: some tests take a hundred times as long.
"""

import os

# Before anything imports torch or numpy, which read it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
