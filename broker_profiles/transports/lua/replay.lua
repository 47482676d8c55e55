-- ARGV: ids of dead letters. Returns how many are messages again.

local number, replayed = call('INCRBY', P .. 'sequence', #ARGV) - #ARGV, 0
for _, id in ipairs(ARGV) do
    local queue, body, priority = unbury(id)
    if queue then
        number, replayed = number + 1, replayed + 1
        store(queue, number, priority, 0, 0, body)
    end
end
return replayed
