-- ARGV from 2: milliseconds, how many a queue keeps, how many are removed at most, queues. Returns how many were.

local before, kept, most = now - ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local removed = 0

-- Returns when one died; of one that an earlier version has set aside its record says so, and is read once.
local function died_at(id)
    local at = call('HGET', P .. 'dead:at', id)
    if not at then
        local letter = shown(id, 0)
        at = letter and letter[8] or 0
        also_when_full()
        call('HSET', P .. 'dead:at', id, at)
    end
    return tonumber(at)
end

-- Removes some of the oldest, of those that are older than that where it is given.
local function remove(key, count, older_than)
    for _, id in ipairs(call('ZRANGE', key, 0, math.min(count, most - removed) - 1)) do
        if older_than and died_at(id) >= older_than then
            return
        end
        unbury(id)
        call('ZREM', key, id)  -- of one whose record is lost nobody knows the queue
        removed = removed + 1
    end
end

remove(P .. 'dead:ids', most, before)
for i = 5, #ARGV do
    local key = P .. 'dead:ids:' .. ARGV[i]
    local beyond = math.min(call('ZCARD', key) - kept, most - removed)
    if beyond > 0 then
        remove(key, beyond)
    end
end
return removed
