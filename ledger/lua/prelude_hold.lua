local ENDED = '^([SXR]) (%d+) (%d+) ?(%d*) ?(%d*) ?(%S*)'
-- {amount, tokens, key us, account us, day, month, free or false} of a hold, what ENDED finds of an ended request, and the value;
-- all empty if Redis does not know the request. value: what MGET said, if it was asked.
local function kept(key, value)
  value = value or redis.call('GET', key)
  local h, e = {}, {}
  if value then
    if string.byte(value) == 76 and #value >= HOLD_BYTES then -- L
      local _, amount, _, _, tokens, key_us, account_us, day, month, free = struct.unpack(HOLD, value, 2)
      h = {amount, tokens, key_us, account_us, day, month, free >= 0 and free}
    else
      e = {string.match(value, ENDED)}
      if not e[1] then error({err = 'EHOLD'}) end -- nothing is charged on what cannot be read
    end
  end
  return h, e, value
end
local function mark(key, state, charge, short, day, month, free) -- %d is whole up to CAP: a long has 64 bits
  local more = day and string.format(' %s %s %s', day, month, free or '-') or ''
  redis.call('SET', key, string.format('%s %d %d', state, charge, short) .. more, 'PX', MARK_MS)
end
