-- ARGV from 2: queue, expiry if unused and time to live of its messages (milliseconds or 0). What it was
-- declared with first stays; to declare it again is to use it.

also_when_full()
call('HSETNX', P .. 'queues', ARGV[2], ARGV[3] .. ' ' .. ARGV[4])
local expires = tonumber(string.match(call('HGET', P .. 'queues', ARGV[2]), '^%d+'))
if expires > 0 then
    call('ZADD', P .. 'idle', now + expires, ARGV[2])
end
