-- ARGV from 2: messages.

publish(2)
