-- ARGV from 2: limit, queue or nothing. Returns id, queue, body, priority, reason, detail, deliveries, time of each.

local ids = call('ZRANGE', ARGV[3] and P .. 'dead:ids:' .. ARGV[3] or P .. 'dead:ids', 0, ARGV[2] - 1)
local letters = {}
for _, id in ipairs(ids) do
    letters[#letters + 1] = { id, cmsgpack.unpack(call('HGET', P .. 'dead', id)) }
end
return letters
