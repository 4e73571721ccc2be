"""`python -m proxy`, the same as `rerank-proxy`."""

import sys

from proxy.cli import main

sys.exit(main())
