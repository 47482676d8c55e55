-- ARGV from 2: queue. Returns how many are ready, delayed, leased, dead.

local ready, delayed = call('ZCARD', P .. 'ready:' .. ARGV[2]), call('ZCARD', P .. 'delayed:' .. ARGV[2])
local all = call('HLEN', P .. 'bodies:' .. ARGV[2])
return { ready, delayed, all - ready - delayed, call('ZCARD', P .. 'dead:ids:' .. ARGV[2]) }
