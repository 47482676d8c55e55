-- ARGV from 2: what is taken off the deliveries of each (0 or 1), receipts.

settle(3, function(rank, queue, deliveries, expires)
    put_back(rank, queue, deliveries - ARGV[2], expires)
end)
