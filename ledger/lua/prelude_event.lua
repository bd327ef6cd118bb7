-- An entry of the usage stream: `posted`, what the script knows, and `event`, what its caller knows (opaque here).
--   posted: end seq epoch charge short hold spent at free rid     free: 1 or 0; at: us, and never in a day that is sealed
-- m: {server, state, epoch, floor}. spent is a string, because it may be more than a number here counts exactly.
local function append(key, kind, m, seq, rid, charge, short, hold, spent, now, free, event)
  redis.call('XADD', key, '*', 'posted', string.format('%s %d %s %d %d %d %s %d %d %s',
    kind, seq, m[3], charge, short, hold, spent, math.max(now, num(m[4])), free and 1 or 0, rid), 'event', event)
end
