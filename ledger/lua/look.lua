#!lua flags=no-writes
-- All that a gateway remembers of an API key, in one look: the key, its account, and the catalogue that is to be in force.
-- KEYS 1 meta  2 key   (its account has the same hash tag, so it is on the same server)
-- ARGV 1 how the keys of this partition's accounts begin
-- {config, {digest, pepper, acct, line, ver, policy, rpm, tpm, status, exp}, {ver, policy, status}}; nil for what is not there
local key = redis.call('HMGET', KEYS[2], 'digest', 'pepper', 'acct', 'line', 'ver', 'policy', 'rpm', 'tpm', 'status', 'exp')
local account = key[3] and redis.call('HMGET', ARGV[1] .. key[3], 'ver', 'policy', 'status') or {false, false, false}
return {redis.call('HGET', KEYS[1], 'config'), key, account}
