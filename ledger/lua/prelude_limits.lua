-- UTC day and month of `now` (months since year 0), and the line's spend in each: a period that has passed counts 0.
local function periods(now, day, dsum, month, msum)
  local d = math.floor(now / 86400000000)
  local z = d + 719468 -- days since 0000-03-01; Howard Hinnant, "chrono-compatible low-level date algorithms"
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local m = (era * 400 + yoe) * 12 + math.floor((5 * doy + 2) / 153)
  day, month = num(day), num(month) -- a clock that stepped back never opens an old period again
  return math.max(d, day), math.max(m, month), d <= day and num(dsum) or 0, m <= month and num(msum) or 0
end
-- The month that a free request would count in, and how many were used in it; nothing if there is none left.
local function free_used(now, limit, account)
  if limit < 0 then return end
  local f = redis.call('HMGET', account, 'fmonth', 'fused')
  local _, current, _, count = periods(now, nil, nil, f[1], f[2])
  if count < limit then return current, count end
end
