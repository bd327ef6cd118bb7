#!lua flags=allow-oom
-- Money in: set what was credited so far, absolutely, if this grant's number is greater than the last one's.
-- KEYS 1 meta  2 account
-- ARGV 1 grant number  2 credited in total after it
-- {OK, available}  {REPEAT, available}  {RANGE}: the balance would pass 2^53 - 1 nano-USD  {FENCED}
local m = redis.call('HMGET', KEYS[1], 'server', 'state')
if m[1] ~= server() then return {'FENCED'} end
local a = redis.call('HMGET', KEYS[2], 'grant', 'credited', 'balance')
local avail, held, live, rt, tt = balance(a[3])
local number = whole(ARGV[1])
if not number or not string.find(ARGV[2], '^%d+$') then return redis.error_reply('EARG') end
if number <= num(a[1]) then return {'REPEAT', S(avail)} end
local more = minus(ARGV[2], a[2] or '0')
if more < 0 then return redis.error_reply('EARG') end
if avail + held + more > CAP then return {'RANGE'} end
redis.call('HSET', KEYS[2], 'grant', ARGV[1], 'credited', ARGV[2],
  'balance', struct.pack(BALANCE, avail + more, held, live, rt, tt))
return {'OK', S(avail + more)}
