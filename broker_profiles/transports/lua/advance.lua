-- ARGV from 2: a mark, what was seen of it or nothing, what it is to say; messages.

local value = call('HGET', P .. 'marks', ARGV[2]) or ''
if value == ARGV[4] then
    return 1
end
if value ~= ARGV[3] then
    return 0
end
publish(5)
call('HSET', P .. 'marks', ARGV[2], ARGV[4])
call('ZADD', P .. 'marks:used', now, ARGV[2])
return 1
