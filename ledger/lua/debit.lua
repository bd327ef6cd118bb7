#!lua
-- Money out (a payout, a correction down): taken if what is available covers it; its event goes into the same stream.
-- KEYS 1 meta  2 account  3 mark (a hold's key)  4 usage
-- ARGV 1 id  2 amount  3 event (opaque)  4 asked for at, us
-- {OK, available, seq}  {REPEAT, available}: it was taken before  {FUNDS, needed, available}: so also when asked again
-- {FENCED}  {OLD}: unknown here and asked for too long ago to be sure: ask MongoDB first
local m = redis.call('HMGET', KEYS[1], 'server', 'state', 'epoch', 'floor')
if fenced(m) then return {'FENCED'} end
local _, before = kept(KEYS[3])
local avail, held, live, rt, tt = balance(redis.call('HGET', KEYS[2], 'balance'))
if before[1] == 'R' then return {'FUNDS', before[3], before[2]} elseif before[1] then return {'REPEAT', S(avail)} end
local amount, asked, now = whole(ARGV[2]), whole(ARGV[4]), now_us()
if not amount or amount == 0 or not asked then return redis.error_reply('EARG') end
if now - asked > MARK_MS * 1000 - 300000000 then return {'OLD'} end
redis.call('XLEN', KEYS[4]) -- a wrong type fails here, before the first write
if amount > avail then
  mark(KEYS[3], 'R', math.max(avail, 0), amount) -- a refusal that was answered must not become a payout when money comes in
  return {'FUNDS', S(amount), S(math.max(avail, 0))}
end
-- Nothing below this line can fail.
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call('HSET', KEYS[2], 'balance', struct.pack(BALANCE, avail - amount, held, live, rt, tt))
redis.call('HINCRBY', KEYS[2], 'spent', S(amount))
append(KEYS[4], 'debit', m, seq, ARGV[1], amount, 0, 0, redis.call('HGET', KEYS[2], 'spent'), now, false, ARGV[3])
mark(KEYS[3], 'S', amount, 0)
return {'OK', S(avail - amount), S(seq)}
