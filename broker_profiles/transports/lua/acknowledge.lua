-- ARGV from 2: receipts.

acknowledge(2)
