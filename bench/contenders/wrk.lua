-- wrk -s wrk.lua ADDRESS -- REQUESTS: sends the requests of a list in turn (the format is that of
-- ../load.rs) and ends with one line of JSON.
local requests, cursor = {}, 0

function init(arguments)
    for line in io.lines(arguments[1]) do
        local method, path, range = line:match("^(%S+) (%S+) (%S+) %S+$")
        local fields = {}
        if range ~= "-" then fields["Range"] = "bytes=" .. range end
        requests[#requests + 1] = wrk.format(method, path, fields)
    end
end

function request()
    cursor = cursor % #requests + 1
    return requests[cursor]
end

function done(summary, latency)
    local e = summary.errors
    io.write(string.format('{"requests": %d, "seconds": %.6f, "bytes": %d, ' ..
        '"p50_us": %d, "p99_us": %d, "p99.9_us": %d, "wrong": {"connect": %d, "read": %d, ' ..
        '"write": %d, "status": %d, "timeout": %d}}\n',
        summary.requests, summary.duration / 1e6, summary.bytes,
        latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
        e.connect, e.read, e.write, e.status, e.timeout))
end
