-- wrk's script: one fixed ~300 byte chat completion, and the result as one line of JSON. The key comes from the
-- environment, so that it is on no command line.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. (os.getenv("WEIR_BENCH_KEY") or "sk-none")
wrk.body = '{"model":"gpt-4.1","max_tokens":256,"messages":[{"role":"system","content":"You are a helpful assistant."},'
  .. '{"role":"user","content":"Hello! Please answer in two sentences, and tell me about reverse proxies and how they '
  .. 'meter traffic without storing it."}]}'

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_s": %.6f, "p50_us": %d, "p99_us": %d, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
