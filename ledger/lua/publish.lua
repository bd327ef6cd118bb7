#!lua flags=allow-oom
-- Put a newer version of a record (an account's or key's policy and status, or the partition's config) in force.
-- KEYS 1 meta  2 the record: account, key, or meta itself
-- ARGV 1 name of the version field  2 version  3.. field, value ('' removes the field)
-- {OK}  {REPEAT}: this or a later version is in force  {FENCED}
local m = redis.call('HMGET', KEYS[1], 'server')
if m[1] ~= server() then return {'FENCED'} end
local version = whole(ARGV[2])
if not version or #ARGV % 2 ~= 0 or not readable(3, #ARGV, '') then return redis.error_reply('EARG') end
if version <= tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '-1') then return {'REPEAT'} end
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[2], ARGV[i]) else redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
if KEYS[2] ~= KEYS[1] then close_gate(KEYS[2]) end
return {'OK'}
