"""``python -m jupyter_agent.cli``: the command where its script is not on the path."""

import sys

from jupyter_agent.cli import main

sys.exit(main())
