"""`python -m panoptube`."""

import sys

from panoptube.cli import main

sys.exit(main())
