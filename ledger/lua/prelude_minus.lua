-- x - y for non-negative decimal strings up to int64, exact where the difference is below 2^53.
local function minus(x, y)
  local function split(s) return tonumber(string.sub(s, 1, -10)) or 0, tonumber(string.sub(s, -9)) end
  local xh, xl = split(x)
  local yh, yl = split(y)
  return (xh - yh) * 1000000000 + (xl - yl)
end
