-- ARGV: consumer.

repeat
until give_back(ARGV[1], 1, BATCH) == 0
call('ZREM', P .. 'consumers', ARGV[1])
