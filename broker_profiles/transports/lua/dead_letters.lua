-- ARGV: limit, queue or nothing. Returns id, queue, body, priority, reason, detail, deliveries, time of each.

local ids = call('ZRANGE', ARGV[2] and P .. 'dead:ids:' .. ARGV[2] or P .. 'dead:ids', 0, ARGV[1] - 1)
local letters = {}
for _, id in ipairs(ids) do
    letters[#letters + 1] = { id, cmsgpack.unpack(call('HGET', P .. 'dead', id)) }
end
return letters
