-- ARGV from 2: bytes shown, limit, id of the last one before or 0, queue or nothing. Returns `shown` of each.

local key = ARGV[5] and P .. 'dead:ids:' .. ARGV[5] or P .. 'dead:ids'
local letters = {}
for _, id in ipairs(call('ZRANGEBYSCORE', key, '(' .. ARGV[4], '+inf', 'LIMIT', 0, ARGV[3])) do
    letters[#letters + 1] = shown(id, ARGV[2])
end
return letters
