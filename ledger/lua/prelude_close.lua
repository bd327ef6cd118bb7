local LEAST = {rpm = 1, tpm = 1, conc = 0, dcap = 0, mcap = 0, exp = 0, free = 0}
-- Whether the fields and values among ARGV are fit for a gate. gone: the value that takes a field away.
local function readable(from, to, gone)
  for i = from, to, 2 do
    local least, value = LEAST[ARGV[i]], ARGV[i + 1]
    if least and value ~= gone and (whole(value) or -1) < least then return false end
  end
  return true
end
local function close_gate(key) -- whoever changes a field that a gate says again calls this after it
  local f = redis.call('HMGET', key, 'ver', 'rpm', 'tpm', 'conc', 'dcap', 'mcap', 'exp', 'free', 'status')
  f[7] = f[7] or f[8]
  for i = 1, 7 do f[i] = tonumber(f[i] or -1) end
  redis.call('HSET', key, 'gate', struct.pack(GATE, unpack(f, 1, 7)) .. (f[9] or ''))
end
