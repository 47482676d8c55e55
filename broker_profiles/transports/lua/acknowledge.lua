-- ARGV: receipts.

acknowledge(1)
