-- ARGV from 2: queues. Returns milliseconds until a message of theirs may be reserved, -1 where none waits.

local first = -1
for i = 2, #ARGV do
    local queue = ARGV[i]
    if call('EXISTS', P .. 'ready:' .. queue) == 1 then
        return 0
    end
    local due = call('ZRANGE', P .. 'delayed:' .. queue, 0, 0, 'WITHSCORES')[2]
    if due then
        local left = math.max(0, due - now)
        first = first < 0 and left or math.min(first, left)
    end
end
return first
