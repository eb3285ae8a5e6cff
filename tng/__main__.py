"""`python -m tng`: the same as the command `tng`."""

import sys

from tng.cli.main import main

sys.exit(main())
