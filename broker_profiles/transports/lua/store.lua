-- Making messages.

-- Returns the time to live of the messages of a queue, making the queue known.
local function message_ttl(queue)
    local known = call('HGET', P .. 'queues', queue)
    if known == '0 0' then
        return 0
    end
    if not known then
        call('HSET', P .. 'queues', queue, '0 0')
        return 0
    end
    return tonumber(string.match(known, ' (%d+)$'))
end

-- `delay` and `expires` are milliseconds from now, 0 for none.
local function store(queue, number, priority, delay, expires, body)
    local rank = string.format('%.0f', (9 - priority) * SPAN + number)
    local ttl = message_ttl(queue)
    call('HSET', P .. 'bodies:' .. queue, rank, body)
    if delay + expires + ttl == 0 then
        call('ZADD', P .. 'ready:' .. queue, rank, rank)
        return wake(queue)
    end
    if ttl > 0 and (expires == 0 or delay + ttl < expires) then
        expires = delay + ttl
    end
    if expires > 0 then
        expire(queue, rank, now + expires)
    end
    if delay == 0 then
        call('ZADD', P .. 'ready:' .. queue, rank, rank)
        return wake(queue)
    end
    local delayed = P .. 'delayed:' .. queue
    call('ZADD', delayed, now + delay, rank)
    -- Whoever waits for the message that was due first has to wait for a shorter time now.
    if call('ZRANGE', delayed, 0, 0)[1] == rank then
        wake(queue, 'due')
    end
end

-- Stores the messages that begin at ARGV[from]: of each its queue, priority, delay, expiry (milliseconds
-- from now or 0), body.
local function publish(from)
    local number = call('INCRBY', P .. 'sequence', (#ARGV - from + 1) / 5)
    number = number - (#ARGV - from + 1) / 5
    for i = from, #ARGV, 5 do
        number = number + 1
        store(ARGV[i], number, ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), ARGV[i + 4])
    end
end
