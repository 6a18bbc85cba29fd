"""`python -m metarl` is the command `metarl`, as `torchrun -m metarl train ...` needs it."""

import sys

from metarl_toolkit import main

if __name__ == "__main__":
    sys.exit(main())
