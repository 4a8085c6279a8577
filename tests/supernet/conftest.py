"""Lets the tests of this folder import its helpers, and keeps torch to one thread, as every run does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from supernet.distributed import one_thread

one_thread()
