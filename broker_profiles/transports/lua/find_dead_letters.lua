-- ARGV from 2: bytes shown, ids of dead letters. Returns `shown` of each that there is.

local letters = {}
for i = 3, #ARGV do
    letters[#letters + 1] = shown(ARGV[i], ARGV[2])
end
return letters
