#!lua
-- Hold the money for one request, or say why not. Every check comes before the first write: a refusal changes nothing.
-- KEYS 1 meta  2 key  3 account  4 line  5 hold  6 due  7 usage
-- ARGV 1 rid  2 config version  3 least charge if abandoned ('hold': all of it)  4 "account key line", for the sweeper
--      5 facts for its event  6 little-endian doubles: key version, account version, lease us, token estimate, backlog bound,
--      and the amounts to hold, dearest first
-- {OK, which amount (from 1), amount, now us, us in use: key requests, key tokens, account requests, account tokens,
--      1 if it is one of the month's free requests, for which nothing is held, else 0}
-- {FENCED} {ENDED} {STALE} {REVOKED} {EXPIRED} {SUSPENDED, status} {BACKLOG} {CONCURRENCY, scope, limit}
-- {RATE, scope, kind, wait us} {CAP, period, needed, left} {FUNDS, needed, available}
local m = redis.call('HMGET', KEYS[1], 'server', 'state', 'config')
if fenced(m) then return {'FENCED'} end
local found = redis.call('MGET', KEYS[5], KEYS[4])
local before = found[1]
if before then
  if string.find(before, '^[SXR] ') then return {'ENDED'} end
  if string.byte(before) ~= 76 or #before < HOLD_BYTES then return redis.error_reply('EHOLD') end
  local choice, amount, at, _, _, _, _, _, _, free = struct.unpack(HOLD, before, 2)
  return {'OK', choice, amount, at, 0, 0, 0, 0, free < 0 and 0 or 1}
end
local last = #(ARGV[6] or '') / 8
if last < 6 or last % 1 ~= 0 or not (ARGV[3] == 'hold' or whole(ARGV[3])) then return redis.error_reply('EARG') end
local given = {struct.unpack('<' .. string.rep('d', last), ARGV[6])}
check(given, 1, last)
local lease, tokens, bound = given[3], given[4], given[5]
local k, a = redis.call('HGET', KEYS[2], 'gate'), redis.call('HMGET', KEYS[3], 'gate', 'balance')
if not (k and a[1]) then return {'STALE'} end
local k_ver, k_rpm, k_tpm, k_conc, dcap, mcap, exp = struct.unpack(GATE, k)
local a_ver, a_rpm, a_tpm, a_conc, _, _, gift = struct.unpack(GATE, a[1])
if k_ver ~= given[1] or a_ver ~= given[2] or m[3] ~= ARGV[2] then return {'STALE'} end
local now = now_us()
if string.sub(k, GATE_BYTES + 1) ~= 'active' then return {'REVOKED'} end
if exp >= 0 and exp <= now then return {'EXPIRED'} end
local status = string.sub(a[1], GATE_BYTES + 1)
if status ~= 'active' then return {'SUSPENDED', status} end
if redis.call('XLEN', KEYS[7]) >= bound then return {'BACKLOG'} end
local live, l_rt, l_tt, l_day, l_dsum, l_month, l_msum = in_use(KEYS[4], found[2])
local avail, held, alive, a_rt, a_tt = balance(a[2])
if k_conc >= 0 and live >= k_conc then return {'CONCURRENCY', 'key', S(k_conc)} end
if a_conc >= 0 and alive >= a_conc then return {'CONCURRENCY', 'account', S(a_conc)} end
local wait, scope, kind = 0, '', ''
local function gcra(tat, limit, n, who, what) -- the new state and the microseconds that it adds
  if limit < 0 then return now, 0 end
  local cost = math.ceil(math.min(n, limit) * MINUTE / limit)
  tat = math.min(math.max(tat, now), now + MINUTE) -- a clock that stepped locks out for a minute at most
  local over = tat + cost - now - MINUTE
  if over > wait then wait, scope, kind = over, who, what end
  return tat + cost, cost
end
local lr = gcra(l_rt, k_rpm, 1, 'key', 'requests')
local lt, lus = gcra(l_tt, k_tpm, tokens, 'key', 'tokens')
local ar = gcra(a_rt, a_rpm, 1, 'account', 'requests')
local at, aus = gcra(a_tt, a_tpm, tokens, 'account', 'tokens')
if wait > 0 then return {'RATE', scope, kind, S(wait)} end
local day, month, dsum, msum = periods(now, l_day, l_dsum, l_month, l_msum)
local fmonth, fused = free_used(now, gift, KEYS[3])
local free = fused and given[6] > 0 -- what costs nothing anyway uses none up
local room, cap = avail, 'day'
if dcap >= 0 and dcap - dsum < room then room = dcap - dsum end
if mcap >= 0 and mcap - msum < room then room, cap = mcap - msum, 'month' end
room = math.max(room, 0) -- a cap that was lowered, or a charge above its hold: what is free still passes
local n = last
for i = 6, free and 0 or last - 1 do if given[i] * 10 <= room then n = i; break end end
local amount = free and 0 or given[n]
if amount > avail then return {'FUNDS', S(amount), S(avail)} end
if amount > room then return {'CAP', cap, S(amount), S(room)} end
-- The first writes are those that meet a key of a wrong type, and change nothing then; nothing below them can fail.
local hold = 'L' .. struct.pack(HOLD, n - 5, amount, now, 0, tokens, lus, aus, day, month, free and fmonth or -1)
  .. ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[5]
if not redis.call('SET', KEYS[5], hold, 'NX') then return redis.error_reply('EHOLD') end -- MGET took it for nothing
local due = redis.pcall('ZADD', KEYS[6], now + lease, ARGV[1])
if type(due) == 'table' then
  redis.call('DEL', KEYS[5])
  return due
end
redis.call('HSET', KEYS[3], 'balance', struct.pack(BALANCE, avail - amount, held + amount, alive + 1, ar, at))
redis.call('SET', KEYS[4], struct.pack(LINE, live + 1, lr, lt, day, dsum + amount, month, msum + amount))
if free then redis.call('HSET', KEYS[3], 'fmonth', fmonth, 'fused', fused + 1) end
return {'OK', n - 5, amount, now, lr - now, lt - now, ar - now, at - now, free and 1 or 0}
