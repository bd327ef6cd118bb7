"""The request path: admitted, held, forwarded as it is, measured, charged."""

import ledger as ledger  # first, because it knows where compiled modules are
