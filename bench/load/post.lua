-- wrk's script: one fixed POST, or one with another key each time, and the result as one line of JSON.
-- All comes from the environment, so that no key is on a command line: the body's file, headers as `name: value` lines,
-- and WEIR_BENCH_KEYS, a file of keys of one length, of which the first WEIR_BENCH_OF are drawn from.
local function whole(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

wrk.method = "POST"
wrk.body = whole(os.getenv("WEIR_BENCH_BODY"))
for name, value in string.gmatch(os.getenv("WEIR_BENCH_HEADERS"), "([^:\n]+): ([^\n]+)") do
  wrk.headers[name] = value
end

local keys, length, of, before, after

local function draw()
  local start = math.random(0, of - 1) * length + 1
  return before .. string.sub(keys, start, start + length - 2) .. after
end

if os.getenv("WEIR_BENCH_KEYS") then
  request = draw
end

function init()
  if not os.getenv("WEIR_BENCH_KEYS") then return end
  keys, of = whole(os.getenv("WEIR_BENCH_KEYS")), tonumber(os.getenv("WEIR_BENCH_OF"))
  length = string.find(keys, "\n", 1, true)
  wrk.headers["Authorization"] = "Bearer @KEY@"
  local text = wrk.format()
  local from, to = string.find(text, "@KEY@", 1, true)
  before, after = string.sub(text, 1, from - 1), string.sub(text, to + 1)
  math.randomseed(os.time())
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_s": %.6f, "p50_us": %d, "p99_us": %d, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
