"""`python3 -m lib MODE [WORD...]` runs the tests of a mode here and now; `--list` names them."""
import sys

from .registry import main

sys.exit(main(sys.argv[1:]))
