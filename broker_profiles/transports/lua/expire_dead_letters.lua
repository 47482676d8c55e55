-- ARGV from 2: milliseconds, how many a queue keeps, how many are removed at once, queues. Returns whether there
-- may be more of them.

local before, kept, most = now - ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local again = 0

-- Removes some of the oldest, of those that are older than that where it is given.
local function remove(key, count, older_than)
    local ids = call('ZRANGE', key, 0, math.min(count, most) - 1)
    for _, id in ipairs(ids) do
        if older_than and shown(id, 0)[8] >= older_than then
            return
        end
        unbury(id)
    end
    if #ids == most then
        again = 1
    end
end

remove(P .. 'dead:ids', most, before)
for i = 5, #ARGV do
    local key = P .. 'dead:ids:' .. ARGV[i]
    local beyond = call('ZCARD', key) - kept
    if beyond > 0 then
        remove(key, beyond)
    end
end
return again
