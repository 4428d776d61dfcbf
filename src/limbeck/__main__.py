"""`python -m limbeck` is the command."""

import sys

from limbeck.cli.main import main

sys.exit(main())
