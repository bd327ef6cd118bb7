#!lua flags=allow-oom
-- Abandon a request whose lease has ended: charge what was reported, free the hold and the slot.
-- KEYS 1 meta  2 account  3 line  4 hold  5 due  6 usage
-- ARGV 1 rid
-- {OK, charge, shortfall, seq}  {NOT_DUE}  {GONE}: it ended meanwhile  {FENCED}
local m = redis.call('HMGET', KEYS[1], 'server', 'state', 'epoch', 'floor')
if fenced(m) then return {'FENCED'} end
local h = redis.call('HMGET', KEYS[4], unpack(HOLD))
if h[1] ~= 'H' then redis.call('ZREM', KEYS[5], ARGV[1]); return {'GONE'} end
local due = redis.call('ZSCORE', KEYS[5], ARGV[1])
if due and num(due) > now_us() then return {'NOT_DUE'} end
local said = redis.call('HMGET', KEYS[4], 'used', 'keep', 'facts')
local keep = num(said[2] == 'hold' and h[2] or said[2])
local charge, rest, seq = post('abandoned', ARGV[1], m, h, math.max(num(said[1]), keep), nil, said[3])
mark('X', charge, rest)
return {'OK', S(charge), S(rest), S(seq)}
