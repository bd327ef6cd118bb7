-- What an account has, and has in use: the field `balance` of its hash, five little-endian doubles (exact up to CAP):
-- avail held live rt tt, all 0 where there is none. One field, because a script pays for each that it reads or writes.
-- avail, held: nano-USD. live: requests in flight. rt, tt: the rate states of requests and tokens, us.
local BALANCE, BALANCE_BYTES = '<ddddd', 40
local function balance(record)
  if not record then return 0, 0, 0, 0, 0 end
  if #record ~= BALANCE_BYTES then error({err = 'EBALANCE'}) end -- no money moves on what cannot be read
  return struct.unpack(BALANCE, record)
end
