-- ARGV: ids of dead letters. Returns how many were removed.

local discarded = 0
for _, id in ipairs(ARGV) do
    if unbury(id) then
        discarded = discarded + 1
    end
end
return discarded
