-- ARGV: queue. Returns how many are ready, delayed, leased, dead.

local ready, delayed = call('ZCARD', P .. 'ready:' .. ARGV[1]), call('ZCARD', P .. 'delayed:' .. ARGV[1])
local all = call('HLEN', P .. 'bodies:' .. ARGV[1])
return { ready, delayed, all - ready - delayed, call('ZCARD', P .. 'dead:ids:' .. ARGV[1]) }
