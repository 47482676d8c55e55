-- Put before every script. KEYS[1] is the prefix of every key, with its hash tag: "{broker-profiles}:".
-- All other keys are made from it and from the names of queues, consumers and exchanges, so they are in
-- the same slot, and a script may touch them in a cluster too:
--
--   sequence          the last number given to a message or a dead letter
--   queues            hash: queue -> "EXPIRES TTL", milliseconds, 0 for none
--   idle              sorted set: queue that expires -> when, if it is not used until then
--   bodies:QUEUE      hash: rank -> body; a message exists as long as it is here
--   ready:QUEUE       sorted set: rank by rank
--   delayed:QUEUE     sorted set: rank by due time
--   expiring:QUEUE    sorted set: rank by expiry, of ready and delayed messages that expire
--   deliveries:QUEUE  hash: rank -> deliveries, of ready messages that were delivered before
--   wake:QUEUE        list of at most one token, on which idle consumers block
--   sweeps            sorted set: queue by the first expiry in it
--   consumers         sorted set: consumer by the end of its lease; 0 while it is being ended
--   held:CONSUMER     hash: rank -> "NONCE DELIVERIES EXPIRES QUEUE" of what is leased to it
--   renewed           when any consumer last renewed its lease
--   bindings:EXCHANGE set of "KEY\0QUEUE"; bound:QUEUE is a set of "EXCHANGE\0KEY"
--   marks             hash: mark -> what it says; marks:used is a sorted set: mark by its last use
--   dead              hash: id -> record; dead:ids and dead:ids:QUEUE are sorted sets of ids
--   dead:at           hash: id of a dead letter -> when it died, so that its record need not be read for it
--
-- A rank is (9 - priority) * SPAN + number: it is the id of a message, its score and its place. As a
-- double holds whole numbers up to 2^53, ten priorities leave room for 2^49 messages. Times are
-- milliseconds since the epoch, by the server's clock.
--
-- The server refuses a script for want of memory only at its first write. So a script that stores
-- messages begins with a write that may be refused, and every other one with a removal, which may not:
-- nothing is ever half done, and workers can empty a full server.

local P = KEYS[1]
local call = redis.call
local SPAN = 562949953421312
local BATCH = 1000

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- ARGV[1] is when the caller gives up. A command may be read long after that, when a frozen server goes on
-- or a network is mended; the caller has tried again by then or said that it failed, so nothing is done.
if now > tonumber(ARGV[1]) then
    return redis.error_reply('LATE ' .. string.format('%.0f', now))
end

local function also_when_full()
    call('ZREM', P .. 'consumers', '')
end

-- Notes when a message that is ready or delayed expires.
local function expire(queue, rank, at)
    call('ZADD', P .. 'expiring:' .. queue, at, rank)
    call('ZADD', P .. 'sweeps', 'LT', at, queue)
end

-- Removes expired messages that nobody holds, a batch of them.
local function sweep(queue)
    local expiring = P .. 'expiring:' .. queue
    local expired = call('ZRANGEBYSCORE', expiring, '-inf', now, 'LIMIT', 0, BATCH)
    if #expired > 0 then
        call('ZREM', expiring, unpack(expired))
        call('ZREM', P .. 'ready:' .. queue, unpack(expired))
        call('ZREM', P .. 'delayed:' .. queue, unpack(expired))
        call('HDEL', P .. 'deliveries:' .. queue, unpack(expired))
        call('HDEL', P .. 'bodies:' .. queue, unpack(expired))
    end
    local first = call('ZRANGE', expiring, 0, 0, 'WITHSCORES')[2]
    if first then
        call('ZADD', P .. 'sweeps', first, queue)
    else
        call('ZREM', P .. 'sweeps', queue)
    end
end

-- Wakes one consumer that waits for this queue, now or when next it begins to wait. The token says
-- whether a message is "ready", or another one is "due" first.
local function wake(queue, token)
    local key = P .. 'wake:' .. queue
    if call('LLEN', key) == 0 then
        call('RPUSH', key, token or 'ready')
    end
end
