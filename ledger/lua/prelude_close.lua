local GATED = {rpm = true, tpm = true, conc = true, dcap = true, mcap = true, exp = true, free = true}
local function readable(from, to) -- whether the fields and values among ARGV are fit for a gate
  for i = from, to, 2 do
    if GATED[ARGV[i]] and ARGV[i + 1] ~= '' and not whole(ARGV[i + 1]) then return false end
  end
  return true
end
local function close_gate(key) -- whoever changes a field that a gate says again calls this after it
  local f = redis.call('HMGET', key, 'ver', 'rpm', 'tpm', 'conc', 'dcap', 'mcap', 'exp', 'free', 'status')
  f[7] = f[7] or f[8]
  for i = 1, 7 do f[i] = tonumber(f[i] or -1) end
  redis.call('HSET', key, 'gate', struct.pack(GATE, unpack(f, 1, 7)) .. (f[9] or ''))
end
