-- ARGV from 2: consumer, nonce, whether it was sent before, lease, limit, delivery limit, number of queues,
-- queues, then receipts to acknowledge. Returns "QUEUE-NUMBER RANK DELIVERIES ..." and then the bodies.

local consumer, nonce, again, lease = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local limit, delivery_limit, last = tonumber(ARGV[6]), tonumber(ARGV[7]), 8 + ARGV[8]
local about, reply = {}, { '' }

acknowledge(last + 1)

-- Nobody got the answer and knows that these are leased.
if again == '1' then
    give_back(consumer, 1, call('HLEN', P .. 'held:' .. consumer), nonce)
end

local function promote(queue)
    local delayed = P .. 'delayed:' .. queue
    local due = call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, BATCH)
    if #due > 0 then
        call('ZREM', delayed, unpack(due))
        local scored = {}
        for i, rank in ipairs(due) do
            scored[2 * i - 1], scored[2 * i] = rank, rank
        end
        call('ZADD', P .. 'ready:' .. queue, unpack(scored))
    end
end

-- Takes up to `wanted` ready messages; returns how many were taken off the queue, and how many delivered.
local function take(queue, number, wanted)
    local popped = call('ZPOPMIN', P .. 'ready:' .. queue, wanted)
    local ranks = {}
    for i = 1, #popped, 2 do
        ranks[#ranks + 1] = popped[i]
    end
    if #ranks == 0 then
        return 0, 0
    end
    local bodies = call('HMGET', P .. 'bodies:' .. queue, unpack(ranks))
    local expiring, counts = P .. 'expiring:' .. queue, P .. 'deliveries:' .. queue
    local expiries, delivered = {}, {}
    if call('EXISTS', expiring) == 1 then
        expiries = call('ZMSCORE', expiring, unpack(ranks))
        call('ZREM', expiring, unpack(ranks))
    end
    if call('EXISTS', counts) == 1 then
        delivered = call('HMGET', counts, unpack(ranks))
        call('HDEL', counts, unpack(ranks))
    end
    local held = {}
    for i, rank in ipairs(ranks) do
        local expires, deliveries = expiries[i] or '0', (delivered[i] or 0) + 1
        if expires ~= '0' and tonumber(expires) <= now then
            call('HDEL', P .. 'bodies:' .. queue, rank)
        elseif deliveries > delivery_limit then
            local detail = 'delivered ' .. deliveries - 1 .. ' times and never finished'
            bury(rank, queue, deliveries - 1, 'deliveries exhausted', detail)
        elseif bodies[i] then
            held[#held + 1] = rank
            held[#held + 1] = nonce .. deliveries .. ' ' .. expires .. ' ' .. queue
            about[#about + 1] = number .. ' ' .. rank .. ' ' .. deliveries
            reply[#reply + 1] = bodies[i]
        end
    end
    if #held > 0 then
        call('HSET', P .. 'held:' .. consumer, unpack(held))
    end
    return #ranks, #held / 2
end

local left, rounds = limit, 0
for i = 9, last do
    local queue = ARGV[i]
    local drained = false
    if left > 0 then
        promote(queue)
    end
    -- Rounds are limited so that a heap of expired messages does not hold up the server.
    while left > 0 and not drained and rounds < 10 do
        local wanted = math.min(left, BATCH)
        local taken, delivered = take(queue, i - 8, wanted)
        left, rounds, drained = left - delivered, rounds + 1, taken < wanted
        if delivered < taken then
            sweep(queue)
        end
    end
    -- A token for an empty queue would wake somebody in vain; where messages stay, the next one is woken.
    if drained then
        call('UNLINK', P .. 'wake:' .. queue)
    elseif call('EXISTS', P .. 'ready:' .. queue) == 1 then
        wake(queue)
    end
end

if #about > 0 then
    call('ZADD', P .. 'consumers', 'NX', now + lease, consumer)
    reply[1] = table.concat(about, ' ')
end
return reply
