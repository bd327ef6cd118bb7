-- What a key and those that replace it have in use, as seven little-endian doubles (exact up to CAP; as text it cost both scripts
-- a twentieth more): live rt tt day dsum month msum, all 0 where there is none.
-- live: requests in flight. rt, tt: the rate states of requests and tokens, us. dsum, msum: spent or held in that day, that month.
local LINE, LINE_BYTES = '<ddddddd', 56
local function in_use(key, record) -- record: what MGET said, if it was asked: of a wrong type it says that there is nothing
  record = record or redis.call('GET', key)
  if not record then return 0, 0, 0, 0, 0, 0, 0 end
  if #record ~= LINE_BYTES then error({err = 'ELINE'}) end -- nothing is held or charged on what cannot be read
  return struct.unpack(LINE, record)
end
