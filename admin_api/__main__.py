"""`python -m admin_api`."""

import sys

from admin_api.serve import main

sys.exit(main())
