#!lua flags=allow-oom
-- End a request: release its hold, post the charge, append the usage event; or void it at no charge.
-- KEYS 1 meta  2 account  3 line  4 hold  5 due  6 usage
-- ARGV 1 rid  2 settled|voided  3 event (opaque)  4 little-endian doubles: cost, admitted us, tokens used (-1 if unknown)
-- {OK, end, charge, shortfall, seq, server}  end: settled, voided, late (the sweeper was first), orphan (Redis lost the admit)
-- {REPEAT, charge, shortfall, server}  {FENCED}  {OLD}: unknown here and admitted too long ago to be sure: ask MongoDB first
local m = redis.call('HMGET', KEYS[1], 'server', 'state', 'epoch', 'floor')
if fenced(m, true) then return {'FENCED'} end
local found = redis.call('MGET', KEYS[4], KEYS[3])
local h, before = kept(KEYS[4], found[1])
if before[1] == 'S' then return {'REPEAT', before[2], before[3], m[1]} end
local given, void = {struct.unpack('<ddd', ARGV[4])}, ARGV[2] == 'voided'
local cost, admitted, tokens = given[1], given[2], given[3]
check(given, 1, tokens == -1 and 2 or 3)
if (void and cost > 0) or (not void and ARGV[2] ~= 'settled') then return redis.error_reply('EARG') end
local kind, charged, missing = ARGV[2], num(before[2]), num(before[3])
if before[1] == 'X' then
  kind, h = 'late', {false, 0, 0, 0, before[4], before[5], before[6]}
  cost = math.max(cost - charged - missing, 0)
elseif not h[1] then
  kind = 'orphan'
  if now_us() - admitted > MARK_MS * 1000 - 300000000 then return {'OLD'} end
end
if void and not h[1] then -- nothing is held: leave a mark, so that an admit still on its way answers ENDED
  mark(KEYS[4], 'S', charged, missing)
  return {'OK', 'voided', S(charged), S(missing), '0', m[1]}
end
local charge, rest, seq = post(kind, ARGV[1], m, h, cost, tokens >= 0 and tokens, ARGV[3], found[2])
mark(KEYS[4], 'S', charged + charge, missing + rest)
return {'OK', kind, charge, rest, seq, m[1]}
