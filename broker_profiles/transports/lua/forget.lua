-- ARGV from 2: consumer.

repeat
until give_back(ARGV[2], 1, BATCH) == 0
call('ZREM', P .. 'consumers', ARGV[2])
