"""The scripts of the hot book, each with the preludes that it is made of."""

from typing import Final

from ledger.link import Script

_GATE: Final = ("prelude_gate", "prelude_close")
_RECORDS: Final = ("prelude_form", "prelude_hold", "prelude_balance", "prelude_line")
_POST: Final = (*_RECORDS, "prelude_event", "prelude_post")

ADMIT: Final = Script("admit", "prelude_form", "prelude_gate", "prelude_balance", "prelude_line", "prelude_limits")
SETTLE: Final = Script("settle", *_POST)
PROGRESS: Final = Script("progress", "prelude_form", "prelude_hold")
SWEEP: Final = Script("sweep", *_POST)
GRANT: Final = Script("grant", "prelude_minus", "prelude_balance")
PUBLISH: Final = Script("publish", *_GATE)
ADOPT: Final = Script("adopt", *_RECORDS)
REOPEN: Final = Script("reopen")
BARRIER: Final = Script("barrier")
DEBIT: Final = Script("debit", "prelude_form", "prelude_hold", "prelude_balance", "prelude_event")
SEAL: Final = Script("seal")
RESTORE: Final = Script("restore", "prelude_minus", *_GATE, *_RECORDS)
LOOK: Final = Script("look")
SCRIPTS: Final = (ADMIT, SETTLE, PROGRESS, SWEEP, GRANT, PUBLISH, ADOPT, REOPEN, BARRIER, DEBIT, SEAL, RESTORE, LOOK)
