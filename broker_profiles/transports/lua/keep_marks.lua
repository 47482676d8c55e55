-- ARGV from 2: milliseconds, marks.

also_when_full()
for i = 3, #ARGV do
    call('ZADD', P .. 'marks:used', 'XX', now, ARGV[i])
end
local unused = call('ZRANGEBYSCORE', P .. 'marks:used', '-inf', now - ARGV[2], 'LIMIT', 0, BATCH)
if #unused > 0 then
    call('HDEL', P .. 'marks', unpack(unused))
    call('ZREM', P .. 'marks:used', unpack(unused))
end
