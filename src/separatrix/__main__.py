"""``python -m separatrix`` is the ``separatrix`` command."""

import sys

from separatrix.cli import main

sys.exit(main())
