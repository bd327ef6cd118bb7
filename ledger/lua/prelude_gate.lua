-- What admit asks of a key or an account, as one value: the field `gate` of its hash, which says again what other fields say,
-- because a script pays for each field that it reads. Seven little-endian doubles, -1 for what is not there, and the status:
-- ver rpm tpm conc dcap mcap, and `exp` of a key or `free` of an account.
local GATE, GATE_BYTES = '<ddddddd', 56
