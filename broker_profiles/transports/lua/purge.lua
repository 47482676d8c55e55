-- ARGV from 2: queue. Returns how many ready and delayed messages were removed. The cost depends on how many
-- are leased, not on how many waited.

local queue = ARGV[2]
local bodies, kept = P .. 'bodies:' .. queue, P .. 'purging:' .. queue
local waiting = call('ZCARD', P .. 'ready:' .. queue) + call('ZCARD', P .. 'delayed:' .. queue)
if waiting == 0 then
    return 0
end
local leased = call('HLEN', bodies) - waiting
for _, name in ipairs({ 'ready', 'delayed', 'expiring', 'deliveries', 'wake' }) do
    call('UNLINK', P .. name .. ':' .. queue)
end
call('RENAME', bodies, kept)
if leased > 0 then
    for _, consumer in ipairs(call('ZRANGE', P .. 'consumers', 0, -1)) do
        local held = call('HGETALL', P .. 'held:' .. consumer)
        for i = 1, #held, 2 do
            local _, _, _, of = string.match(held[i + 1], HELD)
            local body = of == queue and call('HGET', kept, held[i])
            if body then
                call('HSET', bodies, held[i], body)
            end
        end
    end
end
call('UNLINK', kept)
return waiting
