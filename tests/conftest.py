"""What all tests share."""

import os

# Lightning 2.6 calls names that jsonargparse has renamed since, which it says once a process: in any test.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
