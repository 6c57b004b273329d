"""`python -m alkit` is the command `alkit`."""

import sys

from alkit.cli import main

sys.exit(main())
