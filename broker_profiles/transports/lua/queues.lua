-- Removing queues.

local function drop(queue)
    for _, name in ipairs({ 'bodies', 'ready', 'delayed', 'expiring', 'deliveries', 'wake' }) do
        call('UNLINK', P .. name .. ':' .. queue)
    end
    call('HDEL', P .. 'queues', queue)
    call('ZREM', P .. 'idle', queue)
    call('ZREM', P .. 'sweeps', queue)
    for _, binding in ipairs(call('SMEMBERS', P .. 'bound:' .. queue)) do
        local exchange, key = string.match(binding, '^([^%z]*)%z(.*)$')
        call('SREM', P .. 'bindings:' .. exchange, key .. '\0' .. queue)
    end
    call('UNLINK', P .. 'bound:' .. queue)
end
