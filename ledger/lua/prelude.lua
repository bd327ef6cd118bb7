-- Shared by every script. Money is whole nano-USD, at most CAP; time is the server's, in microseconds.
local CAP, MINUTE = 9007199254740991, 60000000
local MARK_MS = 3600000 -- how long an ended request is remembered, so that a repeat is answered and not posted
-- A number in a reply or among a command's words passes whole below 1e17 (it is printed with %.17g), and all of ours are below
-- CAP or microseconds; S is for where a string is needed. Never '..' or tostring: they lose digits from the 15th on.
local function S(n) return string.format('%.0f', n + 0) end -- + 0 mends -0
local function num(s) return s and s + 0 or 0 end -- what is not there is 0; arithmetic reads a string once, tonumber twice
local function whole(s)
  local n = string.find(s, '^%d+$') and s + 0
  return n and n <= CAP and n or nil
end
local function now_us() local t = redis.call('TIME'); return t[1] * 1000000 + t[2] end
local function posted_at(now, floor) return math.max(now, num(floor)) end -- never into a day that is sealed
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
-- x - y for non-negative decimal strings up to int64, exact where the difference is below 2^53.
local function minus(x, y)
  local function split(s) return tonumber(string.sub(s, 1, -10)) or 0, tonumber(string.sub(s, -9)) end
  local xh, xl = split(x)
  local yh, yl = split(y)
  return (xh - yh) * 1000000000 + (xl - yl)
end
