#!lua flags=allow-oom
-- Renew the lease of a request in flight and report its cost so far.
-- KEYS 1 meta  2 hold  3 due
-- ARGV 1 rid  2 cost so far  3 lease us
-- {OK}  {STOP}: the cost has reached the hold (a free request has none to reach)
-- {GONE}: no live hold (carry on, and settle late)  {FENCED}
local m = redis.call('HMGET', KEYS[1], 'server', 'state')
if fenced(m, true) then return {'FENCED'} end
local used, lease = whole(ARGV[2]), whole(ARGV[3])
if not used or not lease then return redis.error_reply('EARG') end
local h, _, value = kept(KEYS[2])
if not h[1] then return {'GONE'} end
redis.call('ZADD', KEYS[3], 'XX', S(now_us() + lease), ARGV[1])
if used > struct.unpack('<d', value, USED + 1) then redis.call('SETRANGE', KEYS[2], USED, struct.pack('<d', used)) end
return {not h[7] and used >= h[1] and used > 0 and 'STOP' or 'OK'}
