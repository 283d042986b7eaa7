-- Messages that differ, so that no cache can answer; what came of them as one line of JSON.
local key, sent = os.getenv("BENCH_KEY"), 0
local run = tostring(os.time())

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. key

function request()
  sent = sent + 1
  local message = "How is our cash flow this month, until invoice " .. run .. sent .. "?"
  return wrk.format(nil, nil, nil, '{"message":"' .. message .. '"}')
end

function done(summary, latency, requests)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout
  io.write(string.format('\nRESULT {"requests": %d, "seconds": %f, "failed": %d, "p50": %f, "p95": %f}\n',
    summary.requests, summary.duration / 1e6, failed, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3))
end
