-- ARGV: exchange, routing key, queue, 'SADD' or 'SREM'.

also_when_full()
call(ARGV[4], P .. 'bindings:' .. ARGV[1], ARGV[2] .. '\0' .. ARGV[3])
call(ARGV[4], P .. 'bound:' .. ARGV[3], ARGV[1] .. '\0' .. ARGV[2])
