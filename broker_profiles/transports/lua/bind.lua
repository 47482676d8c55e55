-- ARGV from 2: exchange, routing key, queue, 'SADD' or 'SREM'.

also_when_full()
call(ARGV[5], P .. 'bindings:' .. ARGV[2], ARGV[3] .. '\0' .. ARGV[4])
call(ARGV[5], P .. 'bound:' .. ARGV[4], ARGV[2] .. '\0' .. ARGV[3])
