-- What is kept of a request is one text, read and written whole: as a hash it cost both scripts a tenth more.
--   held:  H choice amount at used tokens key_us account_us day month free keep account key line facts
--   ended: S charge short, or, if the sweeper was first, X charge short day month free; a debit that was refused: R available asked
-- day, month: the periods of the admit. free: the month that a free request counts in, else '-'. keep: what it costs if it
-- is abandoned, or 'hold'. charge, short: the sums over its events.
local HELD = '^H %d+ (%d+) %d+ %d+ (%d+) (%d+) (%d+) (%d+) (%d+) (%S+)' -- amount, tokens, key us, account us, day, month, free
local ENDED = '^([SXR]) (%d+) (%d+) ?(%d*) ?(%d*) ?(%S*)'
-- What HELD finds at this key, what ENDED finds, and the text; all empty if Redis does not know the request.
local function kept(key)
  local text = redis.call('GET', key)
  local h, e = {}, {}
  if text then
    h = {string.match(text, HELD)}
    if not h[1] then e = {string.match(text, ENDED)} end
    if not (h[1] or e[1]) then error({err = 'EHOLD'}) end -- nothing is charged on what cannot be read
  end
  return h, e, text
end
local function mark(key, state, charge, short, day, month, free) -- %d is whole up to CAP: a long has 64 bits
  local more = day and string.format(' %s %s %s', day, month, free) or ''
  redis.call('SET', key, string.format('%s %d %d', state, charge, short) .. more, 'PX', MARK_MS)
end
