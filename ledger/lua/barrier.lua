#!lua flags=allow-oom
-- Write something, so that a WAIT behind this script waits for it and for all that this server was told before.
-- KEYS 1 meta
-- {server}: who this is; acknowledgements of another server say nothing about it
redis.call('HINCRBY', KEYS[1], 'barrier', 1)
return {server()}
