"""`python -m keepmap`: the same as the `keepmap` command.

Knows nothing but where that command lives.
"""

from __future__ import annotations

import sys

from keepmap.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
