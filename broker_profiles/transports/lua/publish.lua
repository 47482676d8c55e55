-- ARGV from 2: for each message its queue, priority, delay, expiry (milliseconds from now or 0), body.

local count = (#ARGV - 1) / 5
local number = call('INCRBY', P .. 'sequence', count) - count
for i = 2, #ARGV, 5 do
    number = number + 1
    store(ARGV[i], number, ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), ARGV[i + 4])
end
