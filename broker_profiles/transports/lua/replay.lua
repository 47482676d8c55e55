-- ARGV from 2: ids of dead letters. Returns how many are messages again.

local number, replayed = call('INCRBY', P .. 'sequence', #ARGV - 1) - #ARGV + 1, 0
for i = 2, #ARGV do
    local queue, body, priority = unbury(ARGV[i])
    if queue then
        number, replayed = number + 1, replayed + 1
        store(queue, number, priority, 0, 0, body)
    end
end
return replayed
