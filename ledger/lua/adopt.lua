#!lua flags=allow-oom
-- Reopening: take over one event that MongoDB has and this server lost. Never makes an event; idempotent by the mark.
-- KEYS 1 meta  2 account  3 line  4 hold  5 due
-- ARGV 1 rid  2 S|X (how the request stands after it)  3 charge  4 shortfall (sums over the request's events)
--      5 'beyond': it came to MongoDB after its epoch was closed without it, so the partition may be open already
-- {OK}  {REPEAT}  {FENCED}: otherwise only while the partition is being rebuilt
local m = redis.call('HMGET', KEYS[1], 'server', 'state')
if m[1] ~= server() or (m[2] ~= 'rebuild' and not (ARGV[5] == 'beyond' and m[2] == 'open')) then return {'FENCED'} end
local charge, short = whole(ARGV[3]), whole(ARGV[4])
if not charge or not short or (ARGV[2] ~= 'S' and ARGV[2] ~= 'X') then return redis.error_reply('EARG') end
local h, before = kept(KEYS[4])
if before[1] == 'S' or before[1] == ARGV[2] then return {'REPEAT'} end
local day, month = h[5] or before[4], h[6] or before[5]
local avail, held, alive, a_rt, a_tt = balance(redis.call('HGET', KEYS[2], 'balance'))
local live, rt, tt, l_day, dsum, l_month, msum = in_use(KEYS[3])
redis.call('ZSCORE', KEYS[5], ARGV[1])
local hold, one = num(h[1]), h[1] and 1 or 0
local more = charge - num(before[2]) -- an abandoned request's first charge is in the totals already
redis.call('HSET', KEYS[2], 'balance', struct.pack(BALANCE, avail + hold - more, held - hold, alive - one, a_rt, a_tt))
redis.call('HINCRBY', KEYS[2], 'spent', S(more))
if tonumber(day) == l_day then dsum = math.max(dsum + more - hold, 0) end -- as at a settle
if tonumber(month) == l_month then msum = math.max(msum + more - hold, 0) end
if day then redis.call('SET', KEYS[3], struct.pack(LINE, live - one, rt, tt, l_day, dsum, l_month, msum)) end
redis.call('ZREM', KEYS[5], ARGV[1])
mark(KEYS[4], ARGV[2], charge, short, ARGV[2] == 'X' and day, month, h[7])
return {'OK'}
