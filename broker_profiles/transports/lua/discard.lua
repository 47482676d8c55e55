-- ARGV from 2: ids of dead letters. Returns how many were removed.

local discarded = 0
for i = 2, #ARGV do
    if unbury(ARGV[i]) then
        discarded = discarded + 1
    end
end
return discarded
