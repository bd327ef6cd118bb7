#!lua
-- Hold the money for one request, or say why not. Every check comes before the first write: a refusal changes nothing.
-- KEYS 1 meta  2 key  3 account  4 line  5 hold  6 due  7 usage
-- ARGV 1 rid  2 key version  3 account version  4 config version  5 lease us  6 token estimate  7 backlog bound
--      8 least charge if abandoned ('hold': all of it)  9 "account key line", for the sweeper  10 facts for its event
--      11.. amounts to hold, dearest first
-- {OK, which amount (from 1), amount, now us, us in use: key requests, key tokens, account requests, account tokens,
--      1 if it is one of the month's free requests, for which nothing is held, else 0}
-- {FENCED} {ENDED} {STALE} {REVOKED} {EXPIRED} {SUSPENDED, status} {BACKLOG} {CONCURRENCY, scope, limit}
-- {RATE, scope, kind, wait us} {CAP, period, needed, left} {FUNDS, needed, available}
local m = redis.call('HMGET', KEYS[1], 'server', 'state', 'config')
if fenced(m) then return {'FENCED'} end
local before = redis.call('GET', KEYS[5])
if before then
  if string.find(before, '^[SXR] ') then return {'ENDED'} end
  if string.byte(before) ~= 76 or #before < HOLD_BYTES then return redis.error_reply('EHOLD') end
  local choice, amount, at, _, _, _, _, _, _, free = struct.unpack(HOLD, before, 2)
  return {'OK', choice, amount, at, 0, 0, 0, 0, free < 0 and 0 or 1}
end
local lease, tokens, bound = whole(ARGV[5]), whole(ARGV[6]), whole(ARGV[7])
if not (lease and tokens and bound and (ARGV[8] == 'hold' or whole(ARGV[8]))) then return redis.error_reply('EARG') end
for i = 11, math.max(#ARGV, 11) do if not whole(ARGV[i] or '') then return redis.error_reply('EARG') end end
local k = redis.call('HMGET', KEYS[2], 'ver', 'status', 'exp', 'rpm', 'tpm', 'conc', 'dcap', 'mcap')
local a = redis.call('HMGET', KEYS[3], 'ver', 'status', 'avail', 'held', 'live', 'rt', 'tt', 'rpm', 'tpm', 'conc', 'free')
if k[1] ~= ARGV[2] or a[1] ~= ARGV[3] or m[3] ~= ARGV[4] then return {'STALE'} end
local now = now_us()
if k[2] ~= 'active' then return {'REVOKED'} end
if k[3] and num(k[3]) <= now then return {'EXPIRED'} end
if a[2] ~= 'active' then return {'SUSPENDED', a[2]} end
if redis.call('XLEN', KEYS[7]) >= bound then return {'BACKLOG'} end
local live, l_rt, l_tt, l_day, l_dsum, l_month, l_msum = in_use(KEYS[4])
local alive = num(a[5])
if k[6] and live >= num(k[6]) then return {'CONCURRENCY', 'key', k[6]} end
if a[10] and alive >= num(a[10]) then return {'CONCURRENCY', 'account', a[10]} end
local wait, scope, kind = 0, '', ''
local function gcra(tat, limit, n, who, what) -- the new state and the microseconds that it adds
  if not limit then return now, 0 end
  limit = num(limit)
  local cost = math.ceil(math.min(n, limit) * MINUTE / limit)
  tat = math.min(math.max(num(tat), now), now + MINUTE) -- a clock that stepped locks out for a minute at most
  local over = tat + cost - now - MINUTE
  if over > wait then wait, scope, kind = over, who, what end
  return tat + cost, cost
end
local lr = gcra(l_rt, k[4], 1, 'key', 'requests')
local lt, lus = gcra(l_tt, k[5], tokens, 'key', 'tokens')
local ar = gcra(a[6], a[8], 1, 'account', 'requests')
local at, aus = gcra(a[7], a[9], tokens, 'account', 'tokens')
if wait > 0 then return {'RATE', scope, kind, S(wait)} end
local day, month, dsum, msum = periods(now, l_day, l_dsum, l_month, l_msum)
local avail = num(a[3])
local fmonth, fused = free_used(now, a[11], KEYS[3])
local free = fused and num(ARGV[11]) > 0 -- what costs nothing anyway uses none up
local room, cap = avail, 'day'
if k[7] and k[7] - dsum < room then room = k[7] - dsum end
if k[8] and k[8] - msum < room then room, cap = k[8] - msum, 'month' end
room = math.max(room, 0) -- a cap that was lowered, or a charge above its hold: what is free still passes
local n = #ARGV
for i = 11, free and 0 or n - 1 do if ARGV[i] * 10 <= room then n = i; break end end
local amount = free and 0 or num(ARGV[n])
if amount > avail then return {'FUNDS', S(amount), S(avail)} end
if amount > room then return {'CAP', cap, S(amount), S(room)} end
-- The first write is the one that meets a key of a wrong type; nothing below it can fail.
redis.call('ZADD', KEYS[6], now + lease, ARGV[1])
redis.call('SET', KEYS[5], 'L' .. struct.pack(HOLD, n - 10, amount, now, 0, tokens, lus, aus, day, month, free and fmonth or -1)
  .. ARGV[8] .. ' ' .. ARGV[9] .. ' ' .. ARGV[10])
redis.call('HSET', KEYS[3], 'avail', avail - amount, 'held', num(a[4]) + amount, 'live', alive + 1,
  'rt', ar, 'tt', at)
use(KEYS[4], live + 1, lr, lt, day, dsum + amount, month, msum + amount)
if free then redis.call('HSET', KEYS[3], 'fmonth', fmonth, 'fused', fused + 1) end
return {'OK', n - 10, amount, now, lr - now, lt - now, ar - now, at - now, free and 1 or 0}
