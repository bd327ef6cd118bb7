#!lua flags=allow-oom
-- Abandon a request whose lease has ended: charge what was reported, free the hold and the slot.
-- KEYS 1 meta  2 account  3 line  4 hold  5 due  6 usage
-- ARGV 1 rid
-- {OK, charge, shortfall, seq}  {NOT_DUE}  {GONE}: it ended meanwhile  {FENCED}
local m = redis.call('HMGET', KEYS[1], 'server', 'state', 'epoch', 'floor')
if fenced(m) then return {'FENCED'} end
local h, _, value = kept(KEYS[4])
if not h[1] then redis.call('ZREM', KEYS[5], ARGV[1]); return {'GONE'} end
local due = redis.call('ZSCORE', KEYS[5], ARGV[1])
if due and num(due) > now_us() then return {'NOT_DUE'} end
local keep, facts = string.match(value, '^(%S+) %S+ %S+ %S+ (.*)$', HOLD_BYTES + 1)
local least = keep == 'hold' and h[1] or num(keep)
local cost = math.max(struct.unpack('<d', value, USED + 1), least)
local charge, rest, seq = post('abandoned', ARGV[1], m, h, cost, nil, facts)
mark(KEYS[4], 'X', charge, rest, h[5], h[6], h[7])
return {'OK', S(charge), S(rest), S(seq)}
