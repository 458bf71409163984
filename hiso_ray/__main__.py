"""``python -m hiso_ray``."""

import sys

from hiso_ray.cli import main

if __name__ == "__main__":
    sys.exit(main())
