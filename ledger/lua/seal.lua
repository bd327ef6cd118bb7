#!lua flags=allow-oom
-- Close a day: from here on nothing is posted before its end, whatever the clock does; and say how far posting has come.
-- KEYS 1 meta
-- ARGV 1 end of the day, us
-- {OK, epoch, seq}: every event of the day is among those up to there  {EARLY}: it is not over by this server's clock
-- {FENCED}
local m = redis.call('HMGET', KEYS[1], 'server', 'state', 'epoch', 'seq', 'floor')
if fenced(m) then return {'FENCED'} end
local floor = whole(ARGV[1])
if not floor then return redis.error_reply('EARG') end
if floor > now_us() then return {'EARLY'} end -- else a leader's wrong clock would date every charge into the future
if floor > num(m[5]) then redis.call('HSET', KEYS[1], 'floor', S(floor)) end
return {'OK', m[3], m[4]}
