"""Settings of all tests."""

import os

# One thread a process: the tensors are tiny, and tests of two processes share two cores. Set before
# torch is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
