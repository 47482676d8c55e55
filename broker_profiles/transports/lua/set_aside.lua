-- ARGV from 2: reason, detail, receipts.

settle(4, function(rank, queue, deliveries)
    bury(rank, queue, deliveries, ARGV[2], ARGV[3])
end)
