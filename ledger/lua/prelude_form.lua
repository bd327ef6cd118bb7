-- What is kept of a request is one value, read and written whole: as a hash it cost both scripts a tenth more, as text a thirtieth.
--   held:  L, ten little-endian doubles (exact up to CAP), and text: keep account key line facts
--          the doubles: choice amount at used tokens key_us account_us day month free
--   ended: text: S charge short, or, if the sweeper was first, X charge short day month free; a refused debit: R available asked
-- day, month: the periods of the admit. free: the month that a free request counts in, else -1 ('-' in text). keep: what it
-- costs if it is abandoned, or 'hold'. charge, short: the sums over its events.
local HOLD, HOLD_BYTES = '<dddddddddd', 81 -- from the second byte on; with the first
local USED = 25 -- where `used` begins
