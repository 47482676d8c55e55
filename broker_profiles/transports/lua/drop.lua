-- ARGV: queue.

drop(ARGV[1])
