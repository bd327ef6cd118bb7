-- Shared by every script. Money is whole nano-USD, at most CAP; time is the server's, in microseconds.
local CAP, MINUTE = 9007199254740991, 60000000
local MARK_MS = 3600000 -- how long an ended request is remembered, so that a repeat is answered and not posted
-- A number in a reply or among a command's words passes whole below 1e17 (it is printed with %.17g), and all of ours are below
-- CAP or microseconds; S is for where a string is needed. Never '..' or tostring: they lose digits from the 15th on. (%d is a long
-- of 64 bits here, and a third of what %.0f costs.)
local function S(n) return string.format('%d', n) end
local function num(s) return s and s + 0 or 0 end -- what is not there is 0; arithmetic reads a string once, tonumber twice
local function whole(s)
  local n = string.find(s, '^%d+$') and s + 0
  return n and n <= CAP and n or nil
end
-- Numbers that come as doubles: each is whole and exact, or an error.
local function check(numbers, first, last)
  for i = first, last do
    local n = numbers[i]
    if not (n >= 0 and n <= CAP and n % 1 == 0) then error({err = 'EARG'}) end
  end
end
local function now_us() local t = redis.call('TIME'); return t[1] * 1000000 + t[2] end
-- The server names itself; nothing a client sends takes part (design.md section 5, Fence).
local function server()
  local info = redis.call('INFO', 'replication')
  local _, at = string.find(info, 'master_replid:', 1, true) -- a pattern would cost as much as four calls
  return at and string.sub(info, at + 1, at + 40)
end
local function fenced(m, and_recover) -- m: {server, state, ...} of the partition's meta
  if m[1] ~= server() then return true end
  return not (m[2] == 'open' or (and_recover and m[2] == 'recover'))
end
