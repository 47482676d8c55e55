-- ARGV: reason, detail, receipts.

local now = clock()
settle(3, function(rank, queue, deliveries)
    bury(rank, queue, deliveries, ARGV[1], ARGV[2], now)
end)
