-- What consumers hold.

local HELD = '^(' .. string.rep('.', 12) .. ')(%d+) (%d+) (.*)$'

-- Takes from their consumers what valid receipts name; calls each(rank, queue, deliveries, expires).
-- Receipts begin at ARGV[from], in runs of one consumer: its name, their number, ranks, nonces.
local function settle(from, each)
    while from <= #ARGV do
        local held, count = P .. 'held:' .. ARGV[from], tonumber(ARGV[from + 1])
        local values = call('HMGET', held, unpack(ARGV, from + 2, from + 1 + count))
        local valid, found = {}, {}
        for i = 1, count do
            if values[i] then
                local nonce, deliveries, expires, queue = string.match(values[i], HELD)
                if nonce == ARGV[from + 1 + count + i] then
                    valid[#valid + 1] = ARGV[from + 1 + i]
                    found[#found + 1] = { ARGV[from + 1 + i], queue, tonumber(deliveries), expires }
                end
            end
        end
        if #valid > 0 then
            call('HDEL', held, unpack(valid))
        end
        for _, message in ipairs(found) do
            each(unpack(message))
        end
        from = from + 2 + 2 * count
    end
end

local function acknowledge(from)
    local by_queue = {}
    settle(from, function(rank, queue)
        local ranks = by_queue[queue] or {}
        by_queue[queue] = ranks
        ranks[#ranks + 1] = rank
    end)
    for queue, ranks in pairs(by_queue) do
        for first = 1, #ranks, BATCH do
            call('HDEL', P .. 'bodies:' .. queue, unpack(ranks, first, math.min(#ranks, first + BATCH - 1)))
        end
    end
end

-- Makes a message ready again at its old place, unless its queue was removed meanwhile.
local function put_back(rank, queue, deliveries, expires)
    if call('HEXISTS', P .. 'bodies:' .. queue, rank) == 0 then
        return
    end
    call('ZADD', P .. 'ready:' .. queue, rank, rank)
    if deliveries > 0 then
        call('HSET', P .. 'deliveries:' .. queue, rank, deliveries)
    end
    if expires ~= '0' then
        expire(queue, rank, expires)
    end
    wake(queue)
end

-- Puts back up to `most` messages that a consumer holds, all of one nonce where one is given; `uncounted`
-- is taken off the deliveries of each. Returns how many it looked at.
local function give_back(consumer, uncounted, most, only)
    local held = P .. 'held:' .. consumer
    local found = call('HRANDFIELD', held, most, 'WITHVALUES')
    for i = 1, #found, 2 do
        local nonce, deliveries, expires, queue = string.match(found[i + 1], HELD)
        if not only or nonce == only then
            call('HDEL', held, found[i])
            put_back(found[i], queue, deliveries - uncounted, expires)
        end
    end
    return #found / 2
end

local function bury(rank, queue, deliveries, reason, detail)
    local body = call('HGET', P .. 'bodies:' .. queue, rank)
    if not body then
        return
    end
    call('HDEL', P .. 'bodies:' .. queue, rank)
    local id = call('INCR', P .. 'sequence')
    local priority = 9 - math.floor(rank / SPAN)
    call('HSET', P .. 'dead', id, cmsgpack.pack(queue, body, priority, reason, detail, deliveries, now))
    call('HSET', P .. 'dead:at', id, now)
    call('ZADD', P .. 'dead:ids', id, id)
    call('ZADD', P .. 'dead:ids:' .. queue, id, id)
end
