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
if due and tonumber(due) > now_us() then return {'NOT_DUE'} end
local keep = h[10] == 'hold' and tonumber(h[2]) or tonumber(h[10])
local charge, rest, seq = post('abandoned', ARGV[1], m, h, math.max(tonumber(h[4]), keep), nil, h[11])
mark('X', charge, rest)
return {'OK', S(charge), S(rest), S(seq)}
