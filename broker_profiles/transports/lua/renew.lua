-- ARGV from 2: consumer, lease, queues that it consumes. Returns whether it still had its lease.

local consumer, lease = ARGV[2], tonumber(ARGV[3])
local consumers = P .. 'consumers'

also_when_full()

-- Nobody at all has renewed for half a lease: the server was down, frozen or cut off, or there was no
-- worker. Then leases ran out by the clock alone, and whoever lives gets time to come back.
local before = tonumber(call('GET', P .. 'renewed') or 0)
call('SET', P .. 'renewed', now)
if now - before > lease / 2 then
    local until_ = math.floor(now + lease / 2)
    for _, other in ipairs(call('ZRANGEBYSCORE', consumers, '(0', until_)) do
        call('ZADD', consumers, until_, other)
    end
end

-- One that ran out keeps what it holds until somebody ends it here, and may go on if it comes first.
local ends = tonumber(call('ZSCORE', consumers, consumer) or 0)
if ends == 0 then
    repeat
    until give_back(consumer, 0, BATCH) == 0
end
call('ZADD', consumers, now + lease, consumer)

local budget = BATCH
for _, other in ipairs(call('ZRANGEBYSCORE', consumers, '-inf', now, 'LIMIT', 0, 100)) do
    if budget > 0 then
        budget = budget - give_back(other, 0, budget)
        if call('EXISTS', P .. 'held:' .. other) == 1 then
            call('ZADD', consumers, 0, other)
        else
            call('ZREM', consumers, other)
        end
    end
end

for _, queue in ipairs(call('ZRANGEBYSCORE', P .. 'sweeps', '-inf', now, 'LIMIT', 0, 10)) do
    sweep(queue)
end

for i = 4, #ARGV do
    local known = call('HGET', P .. 'queues', ARGV[i])
    local expires = known and tonumber(string.match(known, '^%d+')) or 0
    if expires > 0 then
        call('ZADD', P .. 'idle', now + expires, ARGV[i])
    end
end
for _, queue in ipairs(call('ZRANGEBYSCORE', P .. 'idle', '-inf', now, 'LIMIT', 0, 100)) do
    drop(queue)
end

return ends > 0 and 1 or 0
