-- The one door that money leaves by, for scripts whose KEYS are 1 meta  2 account  3 line  4 hold  5 due  6 usage.
-- h: as `kept` has it, nothing if there is no hold; of one that was swept, {false, 0, 0, 0, day, month, free}.
-- m: {server, state, epoch, floor}. line: what MGET said of it, if it was asked.
-- A request that was admitted free costs nothing, whoever says otherwise.
local function moved(tat, us, used, estimate, now) -- a rate state after `used` tokens instead of the estimate
  return math.max(math.min(tat + math.floor(us * used / estimate) - us, now + MINUTE), 0)
end
local function post(kind, rid, m, h, cost, tokens, event, line)
  local a = redis.call('HMGET', KEYS[2], 'balance', 'spent')
  local avail, held, alive, a_rt, a_tt = balance(a[1])
  local live, rt, tt, day, dsum, month, msum = in_use(KEYS[3], line)
  redis.call('XLEN', KEYS[6]) -- a wrong type fails here, before the first write
  local now, free = now_us(), tonumber(h[7])
  if free then cost = 0 end
  local hold = num(h[1])
  local can = avail + hold
  local charge = math.max(math.min(cost, can), 0) -- available never drops below zero; the rest is the operator's shortfall
  local one, us_l, us_a, used, estimate = h[1] and 1 or 0, num(h[3]), num(h[4]), 1, num(h[2])
  if h[1] and tokens and estimate > 0 then used = tokens else estimate = 1 end
  redis.call('ZREM', KEYS[5], rid) -- or here; nothing below it can fail
  local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
  local sum = num(a[2]) + charge
  local spent = S(sum)
  if sum > CAP then -- more than a number here counts exactly
    redis.call('HINCRBY', KEYS[2], 'spent', charge)
    spent = redis.call('HGET', KEYS[2], 'spent')
  end
  redis.call('HSET', KEYS[2], 'spent', spent,
    'balance', struct.pack(BALANCE, can - charge, held - hold, alive - one, a_rt, moved(a_tt, us_a, used, estimate, now)))
  if tonumber(h[5]) == day then dsum = math.max(dsum + charge - hold, 0) end -- only while the admit's period still runs
  if tonumber(h[6]) == month then msum = math.max(msum + charge - hold, 0) end
  redis.call('SET', KEYS[3], struct.pack(LINE, live - one, rt, moved(tt, us_l, used, estimate, now), day, dsum, month, msum))
  append(KEYS[6], kind, m, seq, rid, charge, cost - charge, hold, spent, now, free, event)
  if free and kind == 'voided' and tonumber(redis.call('HGET', KEYS[2], 'fmonth')) == free then
    redis.call('HINCRBY', KEYS[2], 'fused', -1) -- nothing was answered, so it was not used
  end
  return charge, cost - charge, seq
end
