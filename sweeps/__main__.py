import sys

from hiso_ray.sweeps.cli import main

if __name__ == "__main__":
    sys.exit(main(command=f"python -m {__package__}"))
