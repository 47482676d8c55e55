-- ARGV from 2: queue.

drop(ARGV[2])
