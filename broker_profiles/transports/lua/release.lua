-- ARGV: what is taken off the deliveries of each (0 or 1), receipts.

settle(2, function(rank, queue, deliveries, expires)
    put_back(rank, queue, deliveries - ARGV[1], expires)
end)
