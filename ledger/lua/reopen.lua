#!lua flags=allow-oom
-- Let this server serve the partition: `take` it for rebuilding, let settles in (`recover`), then `open` it.
-- KEYS 1 meta  2 due
-- ARGV 1 take|recover|open  2 term (fencing token of the leader's lease)  3 lease us  4 epoch  5 config version  6 instance
--      7 day floor us: the end of the last day that was sealed
-- {OK, server}  {TERM}: a later leader has taken over  {LOST}: the server changed since `take`: begin again
local m = redis.call('HMGET', KEYS[1], 'server', 'state', 'term', 'epoch', 'seq', 'config', 'instance', 'floor')
local before = {take = '', recover = 'rebuild', open = 'recover'} -- the state that a step begins in
local term, lease, me = whole(ARGV[2]), whole(ARGV[3]), server()
if not (before[ARGV[1]] and term and lease and whole(ARGV[4]) and whole(ARGV[5])) then return redis.error_reply('EARG') end
if term < num(m[3]) then return {'TERM'} end
if ARGV[1] == 'take' then
  redis.call('HSET', KEYS[1], 'server', me, 'state', 'rebuild', 'term', ARGV[2])
  return {'OK', me}
end
if m[1] ~= me or m[3] ~= ARGV[2] then return {'LOST'} end
if ARGV[1] == 'recover' and m[2] == 'recover' and m[4] == ARGV[4] then return {'OK', me} end -- seq counts settles already
if m[2] ~= before[ARGV[1]] then return {'LOST'} end
if ARGV[1] == 'recover' then
  redis.call('HSET', KEYS[1], 'state', 'recover', 'epoch', ARGV[4], 'seq', '0', 'config', ARGV[5], 'instance', ARGV[6])
  local floor = whole(ARGV[7] or '0') or 0
  if floor > num(m[8]) then redis.call('HSET', KEYS[1], 'floor', S(floor)) end
  return {'OK', me}
end
local floor = now_us() + lease
for _, rid in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', S(floor))) do
  redis.call('ZADD', KEYS[2], 'XX', S(floor), rid)
end
redis.call('HSET', KEYS[1], 'state', 'open')
return {'OK', me}
